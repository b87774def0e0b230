"""What ridge regression minimises: the squared error, judged by the score that suits the target.

Letters: b batch, c cells, k classes or dimensions.
"""

import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Int
from torch import Tensor

from lightning_modules.objectives.cross_entropy import CrossEntropy
from lightning_modules.objectives.objective import Objective


class SquaredErrorOfClasses(CrossEntropy):
    """Regression on one-hot classes; the largest output is what is said."""

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """Summed over the classes."""
        wanted = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        return (outputs - wanted[:, None]).square().sum(-1)


class SquaredErrorOfVectors:
    """Regression on vectors.

    Args:
        suits: the target's own objective, which gives the score.
    """

    classifies = False

    def __init__(self, suits: Objective) -> None:
        self.suits = suits
        self.score = suits.score

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """Summed over the dimensions."""
        return (outputs - targets[:, None]).square().sum(-1)

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """As the target's own objective."""
        return self.suits.scores(outputs, targets)

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """As the target's own objective."""
        return self.suits.trivial_outputs(trivial)
