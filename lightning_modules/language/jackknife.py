"""Intervals by leaving one episode out.

Letters: e episodes, q sums of which the statistic is a function.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy import stats

Sums = Float64[np.ndarray, "q *places"]


def jackknife_interval(
    value: Float64[np.ndarray, "*places"],
    without: Float64[np.ndarray, "e *places"],
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, "*places"], Float64[np.ndarray, "*places"]]:
    """Value -+ t times the jackknife's standard error.

    Args:
        value: the statistic of all episodes.
        without: the statistic without each episode; NaN where an episode is not there anyway.
        level: of the interval.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    known = np.isfinite(without)
    n = known.sum(0)
    filled = np.where(known, without, 0)
    mean = filled.sum(0) / np.maximum(n, 1)
    squares = (np.where(known, without - mean, 0) ** 2).sum(0)
    error = np.sqrt(squares * (n - 1) / np.maximum(n, 1))
    half = np.where(n > 1, stats.t.ppf((1 + level) / 2, np.maximum(n - 1, 1)) * error, np.nan)
    return value - half, value + half


class JackknifeSums:
    """Sums over blocks of episodes, and how each changes when an episode is left out."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self._changes: list[np.ndarray] = []

    def add(
        self, total: Float64[np.ndarray, "q *places"], without: Float64[np.ndarray, "e q *places"]
    ) -> None:
        """Adds a block; `without` is NaN for an episode that has no part in a place."""
        known = np.where(np.isfinite(total), total, 0)
        self.total = known if self.total is None else self.total + known
        self._changes.append(without - total)

    def statistic(
        self, function: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The statistic with both ends of its interval.

        Args:
            function: from the sums [q, *places] to the statistic [*places].
        """
        assert self.total is not None
        value = function(self.total)
        changes = np.concatenate(self._changes)
        without = np.stack([function(self.total + change) for change in changes])
        low, high = jackknife_interval(value, without)
        return value, low, high
