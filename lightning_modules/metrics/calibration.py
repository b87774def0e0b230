"""Calibration: does a stated probability come true as often as it says?

Letters: b batch, c cells, k classes, g groups of units, r draws, v bins of confidence.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.grid_metric import GridMetric, MetricBatch, MetricContext
from lightning_modules.metrics.unit_groups import draw_weights

BINS = 15


class Calibration(GridMetric):
    """Expected calibration error of the most probable class, over equal bins of confidence.

    It is never negative, so that even a calibrated probe shows some with few samples.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """

    names: ClassVar = ("ece",)
    confidence: Tensor
    right: Tensor
    filled: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        shape = (self.groups, context.cells, BINS)
        self.add_sum("confidence", *shape)
        self.add_sum("right", *shape, dtype=torch.int64)
        self.add_sum("filled", *shape, dtype=torch.int64)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To classes whose outputs are log-odds; those of a ridge regression are not."""
        return context.classifies and context.trained_for != "ridge_classes"

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """Three sums a bin."""
        return context.cells * BINS * 24

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Sorts the samples by confidence."""
        confidence, said = torch.softmax(batch.outputs.double(), -1).max(-1)
        # Bins are open below and closed above, as in torchmetrics.
        bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        cells = torch.arange(bins.shape[1], device=bins.device)
        place = (group[:, None].expand_as(bins), cells.expand_as(bins), bins)
        right = (said == batch.targets[:, None]).long()
        self.confidence.index_put_(place, confidence, accumulate=True)
        self.right.index_put_(place, right, accumulate=True)
        self.filled.index_put_(place, torch.ones_like(bins), accumulate=True)

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """The error of each draw."""
        gap = (self.confidence - self.right).cpu().numpy()
        samples = weights @ self.count.cpu().numpy()
        found = [
            np.abs(weights @ gap[:, cell]).sum(1) / np.where(samples > 0, samples, np.nan)
            for cell in range(gap.shape[1])
        ]
        return {"ece": np.stack(found)}

    def table(
        self, cell: int, *, draws: int = 1000, seed: int = 0
    ) -> list[dict[str, float | int | None]]:
        """The reliability of one cell: a row a bin that is not empty.

        With the 95 % interval of the accuracy by drawing units; None where one unit fills the bin,
        where draws leave it empty, and without draws.
        """
        with self.sync_context():  # the sums of all ranks, which must all ask
            filled, confidence, right = (
                part[:, cell].cpu().numpy() for part in (self.filled, self.confidence, self.right)
            )
        weights = draw_weights(filled.sum(1), draws=max(draws, 1), seed=seed)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (weights @ right / (weights @ filled)).T
        rows: list[dict[str, float | int | None]] = []
        for place in np.flatnonzero(filled.sum(0)).tolist():
            count, units = int(filled[:, place].sum()), int((filled[:, place] > 0).sum())
            ends = percentiles(drawn[place : place + 1], units=units)[0].tolist()
            known = draws > 0 and units > 1 and bool(np.isfinite(ends).all())
            low, high = ends if known else (None, None)
            rows.append(
                {
                    "from": place / BINS, "to": (place + 1) / BINS, "samples": count,
                    "confidence": float(confidence[:, place].sum()) / count,
                    "accuracy": float(right[:, place].sum()) / count, "low": low, "high": high,
                }
            )  # fmt: skip
        return rows
