"""Balanced accuracy with draws over the units.

Letters: b batch, c cells, k classes, g groups of units, r draws.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_modules.metrics.grid_metric import (
    GridMetric,
    MetricBatch,
    MetricContext,
    add_by_group,
)


class BalancedAccuracy(GridMetric):
    """The mean over the classes that occur of the share that was recognised.

    Source: scikit-learn's `balanced_accuracy_score`.
    """

    names: ClassVar = ("balanced_accuracy",)
    right: Tensor
    truth: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        classes = context.target.size
        self.add_sum("right", self.groups, context.cells, classes, dtype=torch.int64)
        self.add_sum("truth", self.groups, classes, dtype=torch.int64)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To classes."""
        return context.classifies

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """A count a cell and class."""
        return context.cells * context.target.size * 8

    @property
    def chance(self) -> dict[str, float | None]:
        """Any predictor that does not look."""
        return {"balanced_accuracy": 1 / self.context.target.size}

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Counts where each class was true, and where it was recognised."""
        right = (batch.outputs.argmax(-1) == batch.targets[:, None]).long()
        cells = torch.arange(right.shape[1], device=right.device)
        place = (group[:, None], cells, batch.targets[:, None])
        self.right.index_put_(place, right, accumulate=True)
        add_by_group(self.truth, F.one_hot(batch.targets, self.truth.shape[1]), group)

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """The mean of the recalls of the classes that the draw holds."""
        right, truth = self.right.cpu().numpy(), weights @ self.truth.cpu().numpy()
        there = truth > 0
        share = np.where(there, 1 / np.maximum(truth, 1), 0)
        share /= np.maximum(there.sum(1, keepdims=True), 1)
        share[~there.any(1)] = np.nan
        found = [np.einsum("rk,rk->r", weights @ right[:, c], share) for c in range(right.shape[1])]
        return {"balanced_accuracy": np.stack(found)}
