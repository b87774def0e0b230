"""Statistics of actions in one pass: moments, range, and quantiles from integer counts.

Letters: n rows; a numbers an action; q quantiles; k bins.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from lightning_modules.context.log_bins import LogBins

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = LogBins()


class ActionSums:
    """Sums over actions of one size; memory does not grow with their number."""

    def __init__(self, size: int) -> None:
        self.episodes = 0
        self.steps = 0
        self._mean: Float64[np.ndarray, " a"] = np.zeros(size)
        self._squares: Float64[np.ndarray, " a"] = np.zeros(size)
        self.low: Float64[np.ndarray, " a"] = np.full(size, np.inf)
        self.high: Float64[np.ndarray, " a"] = np.full(size, -np.inf)
        self.counts = np.zeros((size, BINS.size), np.int64)

    def add(self, actions: Float32[np.ndarray, "n a"]) -> None:
        """Adds one episode.

        Source: Chan, Golub & LeVeque (1979), for the moments.
        """
        rows = actions.astype(np.float64)
        self.episodes += 1
        total, mean = self.steps + len(rows), rows.mean(axis=0)
        apart = mean - self._mean
        self._squares += ((rows - mean) ** 2).sum(axis=0)
        self._squares += apart**2 * (self.steps * len(rows) / total)
        self._mean += apart * (len(rows) / total)
        self.steps = total
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        BINS.add(self.counts, np.ascontiguousarray(actions, np.float32))

    def to_json(self) -> dict[str, Any]:
        """Per dimension; quantiles are off by at most the stated relative error."""
        quantiles = BINS.quantiles(self.counts, np.asarray(QUANTILES))
        return {
            "episodes": self.episodes,
            "steps": self.steps,
            "mean": self._mean.tolist(),
            "std": np.sqrt(self._squares / max(self.steps, 1)).tolist(),
            "min": self.low.tolist(),
            "max": self.high.tolist(),
            "quantiles": {
                f"{share:g}": row.tolist() for share, row in zip(QUANTILES, quantiles, strict=True)
            },
            "quantile_relative_error": BINS.relative_error,
        }
