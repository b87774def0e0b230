"""Everything that is said about a set of vectors, as sums that can be added up.

Rows are collected into blocks of a fixed size before they are summed, so the sums of one process
do not depend on how the stream was cut; those of several processes are merged by the formulas for
central moments.

Letters: n rows, d dimensions, k bins.

Source: Chan, Golub & LeVeque (1979); Pébay, Formulas for Robust, One-Pass Parallel Computation of
Covariances and Arbitrary-Order Statistical Moments (2008).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy.linalg import blas

from lightning_modules.context.log_bins import LogBins

BLOCK = 4096
"""Rows that are summed together."""
NUMBERS_AT_ONCE = 2**18
"""Numbers held in float64 together: few enough to stay in a processor's cache."""
MASSIVE, TIMES_MEDIAN = 100.0, 1000.0
"""A massive activation is larger than the one, and than so many times its vector's median size.

Source: Sun et al., Massive Activations in Large Language Models (2024)."""

_syrk: Any = getattr(blas, "dsyrk")  # noqa: B009 - made when scipy was built: no checker knows it
_syr: Any = getattr(blas, "dsyr")  # noqa: B009 - the same


class VectorSums:
    """Counts, central moments up to the third, extremes, bins, and products of pairs.

    Args:
        width: dimensions.
        bins: for quantiles.
        covariance: whether products of pairs of dimensions are summed.
    """

    def __init__(self, width: int, *, bins: LogBins, covariance: bool) -> None:
        self.width, self.bins = width, bins
        self.count = 0
        self.mean: Float64[np.ndarray, " d"] = np.zeros(width)
        self.second: Float64[np.ndarray, " d"] = np.zeros(width)
        """Sum of squared deviations from the mean."""
        self.third: Float64[np.ndarray, " d"] = np.zeros(width)
        self.low: Float64[np.ndarray, " d"] = np.full(width, np.inf)
        self.high: Float64[np.ndarray, " d"] = np.full(width, -np.inf)
        self.massive: Int64[np.ndarray, " d"] = np.zeros(width, np.int64)
        self.counts: Int64[np.ndarray, "d k"] = np.zeros((width, bins.size), np.int64)
        self.products: Float64[np.ndarray, "d d"] | None = (
            np.zeros((width, width), order="F") if covariance else None
        )
        """Sum of products of deviations; the upper triangle alone is kept up to date."""
        self._waiting: Float32[np.ndarray, "_ d"] = np.empty((BLOCK, width), np.float32)
        self._waits = 0

    @staticmethod
    def nbytes(width: int, *, bins: LogBins, covariance: bool) -> int:
        """Bytes that the sums of so many dimensions take."""
        return width * (8 * bins.size + 4 * BLOCK + (8 * width if covariance else 0) + 48)

    def update(self, rows: Float32[np.ndarray, "n d"]) -> None:
        """Adds rows, all of them finite."""
        start = 0
        while start < len(rows):
            if not self._waits and len(rows) - start >= BLOCK:
                self._add(rows[start : start + BLOCK])
                start += BLOCK
                continue
            taken = rows[start : start + BLOCK - self._waits]
            self._waiting[self._waits : self._waits + len(taken)] = taken
            self._waits += len(taken)
            start += len(taken)
            if self._waits == BLOCK:
                self.flush()

    def flush(self) -> None:
        """Sums what still waits for its block to fill."""
        if self._waits:
            self._add(self._waiting[: self._waits])
        self._waits = 0

    def _add(self, rows: Float32[np.ndarray, "n d"]) -> None:
        self.bins.add(self.counts, rows)
        low, high = rows.min(axis=0), rows.max(axis=0)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        if max(-low.min(), high.max()) > MASSIVE:
            self.massive += massive(rows)
        mean, second, third = block_moments(rows)
        if self.products is not None:
            centred = rows - mean
            # BLAS reads columns first: the transpose is handed over without a copy.
            self.products = _syrk(1.0, centred.T, beta=1.0, c=self.products, overwrite_c=True)
        self._merge_moments(len(rows), mean, second, third)

    def _merge_moments(
        self,
        count: int,
        mean: Float64[np.ndarray, " d"],
        second: Float64[np.ndarray, " d"],
        third: Float64[np.ndarray, " d"],
    ) -> None:
        own, total = self.count, self.count + count
        delta = mean - self.mean
        if self.products is not None and own:
            self.products = _syr(own * count / total, delta, a=self.products, overwrite_a=True)
        self.third += (
            third
            + delta**3 * (own * count * (own - count) / total**2)
            + 3 * delta * (own * second - count * self.second) / total
        )
        self.second += second + delta**2 * (own * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def merge(self, other: "VectorSums") -> None:
        """Adds what another process has seen."""
        self.flush()
        other.flush()
        if not other.count:
            return
        self.counts += other.counts
        self.massive += other.massive
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        if self.products is not None and other.products is not None:
            self.products += other.products
        self._merge_moments(other.count, other.mean, other.second, other.third)

    @property
    def covariance(self) -> Float64[np.ndarray, "d d"] | None:
        """The covariance matrix (divided by n - 1); None where it was not asked for."""
        if self.products is None or self.count < 2:
            return None
        upper = np.triu(self.products)
        return (upper + np.triu(upper, 1).T) / (self.count - 1)


def block_moments(
    rows: Float32[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, " d"], Float64[np.ndarray, " d"]]:
    """The mean of a block, and its sums of squared and cubed deviations."""
    n, width = rows.shape
    found = np.empty((3, width))
    step = max(1, NUMBERS_AT_ONCE // n)
    source = torch.from_numpy(np.ascontiguousarray(rows))
    for start in range(0, width, step):
        part = slice(start, start + step)
        values = source[:, part].double()
        mean = values.mean(0)
        values -= mean
        squares = values.square()
        found[0, part], found[1, part] = mean.numpy(), squares.sum(0).numpy()
        found[2, part] = squares.mul_(values).sum(0).numpy()
    return found[0], found[1], found[2]


def massive(rows: Float32[np.ndarray, "n d"]) -> Int64[np.ndarray, " d"]:
    """How often each dimension is massive."""
    size = np.abs(rows)
    suspects = size[(size > MASSIVE).any(axis=1)]
    limit = np.maximum(MASSIVE, TIMES_MEDIAN * np.median(suspects, axis=1, keepdims=True))
    return (suspects > limit).sum(axis=0)
