"""Several yes-or-no questions: binary cross-entropy of each."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float
from torch import Tensor

SMALLEST_SHARE = 1e-6


class BinaryCrossEntropy:
    """Logistic regression on each question."""

    score = "agreement"
    classifies = False

    def loss(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """-log likelihood, mean over the questions."""
        truth = targets[:, None, :].expand_as(outputs)
        return F.binary_cross_entropy_with_logits(outputs, truth, reduction="none").mean(-1)

    def scores(
        self, outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c"]:
        """The share of questions that are answered rightly."""
        return ((outputs > 0) == (targets[:, None, :] > 0.5)).float().mean(-1)

    def trivial_outputs(self, trivial: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """Log-odds of each question's share among the training rows: its majority answer."""
        return torch.logit(trivial, eps=SMALLEST_SHARE)
