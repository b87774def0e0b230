"""Classes: cross-entropy, judged by accuracy."""

import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Int
from torch import Tensor


class CrossEntropy:
    """Softmax regression on class numbers."""

    score = "accuracy"
    classifies = True

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """-log softmax at the true class."""
        b, c, k = outputs.shape
        labels = targets[:, None].expand(b, c).reshape(-1)
        return F.cross_entropy(outputs.reshape(-1, k), labels, reduction="none").view(b, c)

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """1 where the largest output is the true class."""
        return (outputs.argmax(-1) == targets[:, None]).float()

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The majority class of the training rows, always."""
        return trivial
