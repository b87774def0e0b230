"""Balanced accuracy with draws over the units.

Letters: b batch, c cells, k classes, g groups of units, r draws.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_modules.metrics.estimate import Estimate, GridEstimates
from lightning_modules.metrics.grid_metric import (
    GridMetric,
    MetricBatch,
    MetricContext,
    add_by_group,
)
from lightning_modules.metrics.unit_groups import draw_weights


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

    def recalls(self, cell: int, *, draws: int = 1000, seed: int = 0) -> dict[int, Estimate]:
        """The share of each class that one cell recognised; classes that do not occur have none.

        Without an interval where a single unit holds the class.
        """
        with self.sync_context():  # the sums of all ranks, which must all ask
            right, truth = self.right.cpu().numpy()[:, cell], self.truth.cpu().numpy()
        weights = draw_weights(truth.sum(1), draws=draws, seed=seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (weights @ right / (weights @ truth)).T
            share = right.sum(0) / truth.sum(0)
        units = int((truth.sum(1) > 0).sum())
        # A class that one unit holds is always drawn whole or not at all: that tells nothing.
        drawn[(truth > 0).sum(0) < 2] = np.nan
        found = GridEstimates(value=share, draws=drawn, chance=None, units=units)
        return {place: found.cell(place) for place in np.flatnonzero(np.isfinite(share)).tolist()}

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
