"""Normalisation statistics of a data set: mean, deviation, 1st and 99th percentile.

Mean and deviation are streamed in float64. Percentiles are exact where the numbers fit in memory;
where they do not, a second pass counts them in equal bins, and the largest error is one bin.

Source: openpi, `scripts/compute_norm_stats.py` and `src/openpi/shared/normalize.py` (which numbers
count; its percentiles come from 5,000 bins that are moved as the range grows, ours do not).
Letters: n rows; d dimensions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float64, Int64

from jax_bridge.policies.normalisation import FieldStatistics

BINS = 2**16
FARTHEST = 20.0
"""Largest number after quantile normalisation that is taken for an ordinary one."""
QUANTILES = (0.01, 0.99)
Stream = Callable[[], Iterable[Float[np.ndarray, "_ _d"]]]
"""Gives the rows anew at every call, batch by batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """The statistics of one quantity, and how far its percentiles may be off."""

    statistics: FieldStatistics
    rows: int
    quantile_error: Float64[np.ndarray, " d"]
    """Largest error of q01 and q99, in robot units; 0 where they are exact."""
    low: Float64[np.ndarray, " d"]
    """Smallest number."""
    high: Float64[np.ndarray, " d"]

    @property
    def degenerate(self) -> list[int]:
        """Dimensions that never move between their percentiles (q01 = q99)."""
        low, high = self.statistics.pair("quantile")
        return np.flatnonzero(low == high).tolist()

    @property
    def seldom_moving(self) -> list[int]:
        """Dimensions that rest nearly always, and else leave their percentiles far behind.

        Quantile normalisation would make numbers beyond `FARTHEST` of them, in place of -1 to 1.
        """
        low, high = self.statistics.pair("quantile")
        farthest = np.maximum(self.high - high, low - self.low)
        return np.flatnonzero(farthest > (FARTHEST - 1) / 2 * (high - low)).tolist()

    def with_full_range(self, dims: Iterable[int]) -> "Counted":
        """The same, with the smallest and largest number for percentiles in some dimensions."""
        q01, q99 = (row.copy() for row in self.statistics.pair("quantile"))
        for dim in dims:
            q01[dim], q99[dim] = self.low[dim], self.high[dim]
        return dataclasses.replace(
            self, statistics=dataclasses.replace(self.statistics, q01=q01, q99=q99)
        )

    @classmethod
    def nothing(cls, name: str) -> "Counted":
        """Of a quantity that was not recorded: it has no dimensions."""
        none = np.zeros(0)
        statistics = FieldStatistics(name=name, mean=none, std=none, q01=none, q99=none)
        return cls(statistics=statistics, rows=0, quantile_error=none, low=none, high=none)


class _Moments:
    """Count, mean, squared deviations and range, in float64.

    Source: Chan, Golub & LeVeque (1979).
    """

    def __init__(self, dims: int) -> None:
        self.count = 0
        self.mean = np.zeros(dims)
        self.squares = np.zeros(dims)
        self.low, self.high = np.full(dims, np.inf), np.full(dims, -np.inf)

    def add(self, rows: Float64[np.ndarray, "n d"]) -> None:
        """Adds some rows."""
        total = self.count + len(rows)
        mean = rows.mean(0)
        delta = mean - self.mean
        self.squares += np.square(rows - mean).sum(0) + delta**2 * (self.count * len(rows) / total)
        self.mean += delta * (len(rows) / total)
        self.count = total
        self.low = np.minimum(self.low, rows.min(0))
        self.high = np.maximum(self.high, rows.max(0))


def count_statistics(name: str, stream: Stream, *, memory: int = 2**30) -> Counted:
    """Reads a stream once, or twice where its numbers do not fit in memory.

    Args:
        name: `state` or `actions`.
        stream: the rows.
        memory: bytes that may be held for exact percentiles.

    Raises:
        ValueError: if there are no rows, or one is NaN or infinite.
    """
    kept: list[Float64[np.ndarray, "_ _d"]] | None = []
    moments: _Moments | None = None
    for rows in _finite(name, stream()):
        moments = moments or _Moments(rows.shape[1])
        moments.add(rows)
        if kept is not None:
            kept.append(rows)
            kept = kept if moments.count * rows.shape[1] * 8 <= memory else None
    if moments is None:
        raise ValueError(f"`{name}` must have at least one row, but the data set has none.")
    if kept is not None:
        # One dimension at a time: sorting copies what it sorts.
        dims = range(len(moments.mean))
        columns = (np.concatenate([rows[:, d] for rows in kept]) for d in dims)
        quantiles = np.stack([np.quantile(column, QUANTILES) for column in columns], axis=1)
        error = np.zeros(len(moments.mean))
    else:
        quantiles, error = _binned_quantiles(_finite(name, stream()), moments)
    statistics = FieldStatistics(
        name=name, mean=moments.mean, std=np.sqrt(moments.squares / moments.count),
        q01=quantiles[0], q99=quantiles[1],
    )  # fmt: skip
    return Counted(
        statistics=statistics, rows=moments.count, quantile_error=error, low=moments.low,
        high=moments.high,
    )  # fmt: skip


def _finite(name: str, batches: Iterable[np.ndarray]) -> Iterator[Float64[np.ndarray, "_ _d"]]:
    """The batches that have rows, in float64."""
    seen = 0
    for rows in batches:
        good = np.isfinite(rows).all(1)
        if not good.all():
            raise ValueError(
                f"`{name}` must be finite, but row {seen + int(np.argmin(good))} is NaN or "
                "infinite. Leave that episode out."
            )
        seen += len(rows)
        if len(rows):
            yield rows.astype(np.float64)


def _binned_quantiles(
    batches: Iterable[Float64[np.ndarray, "_ _d"]], moments: _Moments
) -> tuple[Float64[np.ndarray, "2 d"], Float64[np.ndarray, " d"]]:
    """Middles of the bins that hold the percentiles, and the width of a bin."""
    width = (moments.high - moments.low) / BINS
    dims = len(width)
    counts: Int64[np.ndarray, "d bins"] = np.zeros((dims, BINS), np.int64)
    safe = np.where(width > 0, width, 1.0)
    for rows in batches:
        places = np.clip(((rows - moments.low) / safe).astype(np.int64), 0, BINS - 1)
        for d in range(dims):
            counts[d] += np.bincount(places[:, d], minlength=BINS)
    reached = counts.cumsum(1) / moments.count
    found = [[np.searchsorted(reached[d], q) for d in range(dims)] for q in QUANTILES]
    return moments.low + (np.asarray(found) + 0.5) * width, width
