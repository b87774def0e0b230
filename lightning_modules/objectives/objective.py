"""The contract of an objective.

Letters: b batch, c cells, k classes or dimensions.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor


@runtime_checkable
class Objective(Protocol):
    """A loss a sample and cell, and the scores by which people judge the result."""

    score: str
    """Name of the score that figures show: `accuracy`, `cosine`."""
    classifies: bool
    """Whether outputs are one number a class."""

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Shaped[Tensor, "b ..."]
    ) -> Float[Tensor, "b c"]:
        """The loss of each sample in each cell."""
        ...

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Shaped[Tensor, "b ..."]
    ) -> Float[Tensor, "b c"]:
        """The score of each sample in each cell; its mean is the score of the cell."""
        ...

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The output of a predictor that never looks at the latents."""
        ...
