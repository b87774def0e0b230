"""Counts in logarithmic bins: quantiles of a stream, within a stated relative error.

A bin is what floating point numbers have in common that agree in sign, exponent and the first bits
of the mantissa. So a number's bin is a look-up of its upper bits, counts are integers, and sums of
counts over batches and processes are exact, in any order.

Letters: n rows, d dimensions, q quantiles, k bins.

Source: the bins of HdrHistogram (Tene); DDSketch (Masson, Rim & Lee, 2019) for relative errors.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32, Float64, Int64

LOWEST, HIGHEST = -20, 20
"""Exponents of 2 that are told apart: smaller numbers count as 0, larger ones share a bin."""
DIMENSIONS_AT_ONCE = 16
"""So few that their counts stay in a processor's cache."""


@dataclasses.dataclass(frozen=True)
class LogBins:
    """Bins that share `bits` bits of the mantissa."""

    bits: int = 6

    @property
    def top(self) -> int:
        """Bins of either sign, with the one of numbers that are too large."""
        return ((HIGHEST - LOWEST) << self.bits) + 1

    @property
    def size(self) -> int:
        """All bins: both signs and 0."""
        return 2 * self.top + 1

    @property
    def relative_error(self) -> float:
        """How far a quantile may be from an order statistic, relative to it."""
        return 2.0 ** -(self.bits + 1)

    @property
    def absolute_error(self) -> float:
        """How far it may be where that is nearer to 0 than this."""
        return 2.0**LOWEST

    @functools.cached_property
    def _shift(self) -> int:
        return 23 - self.bits

    @functools.cached_property
    def table(self) -> Int64[np.ndarray, " t"]:
        """The bin of every pattern of upper bits of a float32, rising with the number."""
        pattern = np.arange(1 << (9 + self.bits))
        half = 1 << (8 + self.bits)
        size = np.clip(pattern % half - ((127 + LOWEST) << self.bits) + 1, 0, self.top)
        return np.where(pattern < half, self.top + size, self.top - size)

    def add(self, counts: Int64[np.ndarray, "d k"], rows: Float32[np.ndarray, "n d"]) -> None:
        """Counts finite numbers.

        Args:
            counts: to be added to.
            rows: the numbers; those of a dimension go to its counts.
        """
        for start in range(0, rows.shape[1], DIMENSIONS_AT_ONCE):
            part = np.ascontiguousarray(rows[:, start : start + DIMENSIONS_AT_ONCE])
            width = part.shape[1]
            places = self.table[part.view(np.uint32) >> self._shift]
            places += np.arange(width) * self.size
            found = np.bincount(places.ravel(), minlength=width * self.size)
            counts[start : start + width] += found.reshape(width, self.size)

    @functools.cached_property
    def middles(self) -> Float64[np.ndarray, " k"]:
        """The number that stands for each bin."""
        place = np.arange(self.top - 1)
        step = 2.0**-self.bits
        low = 2.0 ** (LOWEST + (place >> self.bits))
        size = low * (1 + step * (place % (1 << self.bits) + 0.5))
        right = np.concatenate([size, [2.0**HIGHEST]])
        return np.concatenate([-right[::-1], [0.0], right])

    def quantiles(
        self, counts: Int64[np.ndarray, "d k"], shares: Float64[np.ndarray, " q"]
    ) -> Float64[np.ndarray, "q d"]:
        """The number below which each share of a dimension lies (numpy's `inverted_cdf`)."""
        above = counts.cumsum(axis=1)
        total = above[:, -1]
        found = np.full((len(shares), len(counts)), np.nan)
        for place, share in enumerate(shares):
            rank = np.maximum(np.ceil(share * total), 1)
            bins = (above < rank[:, None]).sum(axis=1)
            found[place] = np.where(
                total > 0, self.middles[np.minimum(bins, self.size - 1)], np.nan
            )
        return found
