"""The objectives by name."""

from lightning_modules.objectives.bce import BinaryCrossEntropy
from lightning_modules.objectives.cosine import Cosine
from lightning_modules.objectives.cross_entropy import CrossEntropy
from lightning_modules.objectives.mse import SquaredError
from lightning_modules.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "cosine": Cosine,
    "mse": SquaredError,
    "bce": BinaryCrossEntropy,
}
