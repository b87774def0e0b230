"""R², the share of the targets' variance that the outputs explain.

Letters: b batch, c cells, k dimensions, g groups of units, r draws.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_modules.metrics.grid_metric import (
    GridMetric,
    MetricBatch,
    MetricContext,
    add_by_group,
)


class Determination(GridMetric):
    """R² over all dimensions together, each weighted by its variance; and of each dimension.

    A mean predictor has 0, and a worse one is negative. Sums are taken around the training mean, so
    that nothing cancels.

    Source: scikit-learn's `r2_score(multioutput="variance_weighted")` and `"raw_values"`.
    """

    names: ClassVar = ("r2",)
    error: Tensor
    first: Tensor
    second: Tensor
    error_of_dimension: Tensor
    second_of_dimension: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        k = context.target.size
        self.add_sum("error", self.groups, context.cells)
        self.add_sum("first", self.groups, k)
        self.add_sum("second", self.groups)
        self.add_sum("error_of_dimension", context.cells, k)
        self.add_sum("second_of_dimension", k)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To vectors that are predicted as such, not as a direction alone."""
        return context.trained_for in ("mse", "ridge")

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """Errors of the cells and sums of the dimensions."""
        return (context.cells + context.target.size + 1) * 8

    @property
    def chance(self) -> dict[str, float | None]:
        """The mean of the evaluated targets."""
        return {"r2": 0.0}

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Adds squared errors and the targets' moments."""
        targets = batch.targets.reshape(len(batch.targets), -1).double()
        error = (batch.outputs.double() - targets[:, None]).square()
        moved = targets - targets.new_tensor(self.context.target.trivial)
        add_by_group(self.error, error.sum(-1), group)
        add_by_group(self.first, moved, group)
        add_by_group(self.second, moved.square().sum(-1), group)
        self.error_of_dimension += error.sum(0)
        self.second_of_dimension += moved.square().sum(0)

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """1 - squared error / variance around the draw's own mean."""
        samples = np.maximum(weights @ self.count.cpu().numpy(), 1)
        first = weights @ self.first.cpu().numpy()
        variance = weights @ self.second.cpu().numpy() - np.square(first).sum(1) / samples
        error = weights @ self.error.cpu().numpy()
        variance = np.where(variance > 0, variance, np.nan)
        return {"r2": 1 - (error / variance[:, None]).T}

    def by_dimension(self) -> Float64[np.ndarray, "c k"]:
        """R² of each dimension; NaN where a dimension does not vary."""
        first, samples = self.first.sum(0), self.count.sum().clamp(min=1)
        variance = (self.second_of_dimension - first.square() / samples).cpu().numpy()
        variance = np.where(variance > 0, variance, np.nan)
        return 1 - self.error_of_dimension.cpu().numpy() / variance
