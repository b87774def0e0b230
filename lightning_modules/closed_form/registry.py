"""The closed forms by name, and the objective that each one minimises on a target."""

import dataclasses
from collections.abc import Callable, Sequence

from jaxtyping import Float64
from torch import Tensor

from datamodules.target_spec import TargetSpec
from lightning_modules.closed_form.cell_sums import CellSums
from lightning_modules.closed_form.lda import SHRINKAGES, lda_path
from lightning_modules.closed_form.ridge import STRENGTHS, ridge_path
from lightning_modules.closed_form.squared_error import (
    SquaredErrorOfClasses,
    SquaredErrorOfVectors,
)
from lightning_modules.objectives.cross_entropy import CrossEntropy
from lightning_modules.objectives.objective import Objective
from lightning_modules.objectives.registry import OBJECTIVES

Path = Callable[
    [CellSums, Sequence[float]], tuple[Float64[Tensor, "l d k"], Float64[Tensor, "l k"]]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """How a cell is solved."""

    path: Path
    """Weights and biases for every strength of the penalty."""
    strengths: tuple[float, ...]
    """What is tried, weakest first; each cell uses the best on the validation split."""
    joint: bool
    """Whether targets that stand side by side do not touch each other, as in ridge regression."""


CLOSED_FORMS: dict[str, ClosedForm] = {
    "ridge": ClosedForm(path=ridge_path, strengths=STRENGTHS, joint=True),
    "lda": ClosedForm(path=lda_path, strengths=SHRINKAGES, joint=False),
}


def closed_form_objective(name: str, target: TargetSpec) -> Objective:
    """What the closed form minimises; its score is that of the target's own objective.

    Raises:
        ValueError: if it does not suit the target.
    """
    if target.classes:
        return SquaredErrorOfClasses() if name == "ridge" else CrossEntropy()
    if name == "lda" or target.objective == "bce":
        raise ValueError(
            f"`objective` must suit the target {target.name}, but got {name!r}. "
            f"Use {target.objective!r} or auto."
        )
    return SquaredErrorOfVectors(OBJECTIVES[target.objective]())
