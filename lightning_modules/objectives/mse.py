"""Vectors: their numbers, by squared error."""

from jaxtyping import Float
from torch import Tensor


class SquaredError:
    """Linear regression on standardised numbers.

    The score is 1 - the mean squared error of a dimension. Targets have a mean square of 1 a
    dimension over the training rows, so it is the share of their variance that is explained: 0 for
    the training mean, negative for worse. R² proper, whose variance is that of the evaluated rows,
    is a metric of its own; this score is a mean over samples, so that whole units can be drawn.
    """

    score = "explained"
    classifies = False

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """Squared error, mean over dimensions."""
        return (outputs - targets[:, None, :]).square().mean(-1)

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """1 - squared error."""
        return 1.0 - self.loss(outputs, targets)

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The mean training vector, always."""
        return trivial
