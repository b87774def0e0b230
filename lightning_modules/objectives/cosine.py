"""Vectors: the direction alone, by cosine similarity."""

import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float
from torch import Tensor


class Cosine:
    """Pulls the output's direction towards the target's."""

    score = "cosine"
    classifies = False

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """1 - cosine similarity."""
        return 1.0 - self.scores(outputs, targets)

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """Cosine similarity."""
        return F.cosine_similarity(outputs, targets[:, None, :], dim=-1)

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The mean training vector, always."""
        return trivial
