"""All that is gathered of one cell while its vectors stream by.

Letters: b batch, d dimensions.
"""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64

from lightning_modules.context.log_bins import LogBins
from lightning_modules.context.vector_sums import VectorSums

MOST_NAMED = 5
"""Samples with NaN or infinity whose row numbers are kept."""
FEWEST_BITS, MOST_BITS = 3, 6


@dataclasses.dataclass
class NotFinite:
    """Vectors that hold NaN or infinity; they are left out of every other number."""

    samples: int = 0
    numbers: int = 0
    first: list[int] = dataclasses.field(default_factory=list)
    """Row numbers of the first ones."""

    def add(self, rows: Int64[np.ndarray, " b"], bad: Int64[np.ndarray, " b"]) -> None:
        """Counts; `bad` says how many numbers of each row are not finite."""
        found = rows[bad > 0].tolist()
        self.samples += len(found)
        self.numbers += int(bad.sum())
        self.first = sorted([*self.first, *found])[:MOST_NAMED]

    def merge(self, other: "NotFinite") -> None:
        """Adds what another process has met."""
        self.samples += other.samples
        self.numbers += other.numbers
        self.first = sorted([*self.first, *other.first])[:MOST_NAMED]


class CellStatistics:
    """Sums of the vectors, and of their lengths.

    Args:
        width: dimensions.
        bins: for quantiles.
        covariance: whether products of pairs of dimensions are summed.
    """

    def __init__(self, width: int, *, bins: LogBins, covariance: bool) -> None:
        self.vectors = VectorSums(width, bins=bins, covariance=covariance)
        self.lengths = VectorSums(1, bins=bins, covariance=False)
        self.not_finite = NotFinite()

    def update(self, vectors: Float32[np.ndarray, "b d"], rows: Int64[np.ndarray, " b"]) -> None:
        """Adds a batch."""
        finite = np.isfinite(vectors)
        if not finite.all():
            bad = (~finite).sum(axis=1)
            self.not_finite.add(rows, bad)
            vectors = vectors[bad == 0]
        self.vectors.update(vectors)
        squares = np.einsum("bd,bd->b", vectors, vectors, dtype=np.float64)
        self.lengths.update(np.sqrt(squares)[:, None].astype(np.float32))

    def merge(self, other: "CellStatistics") -> None:
        """Adds what another process has seen."""
        self.vectors.merge(other.vectors)
        self.lengths.merge(other.lengths)
        self.not_finite.merge(other.not_finite)

    def flush(self) -> None:
        """Sums what still waits."""
        self.vectors.flush()
        self.lengths.flush()


def plan_bins(widths: list[int], *, covariance: bool, memory_budget: int) -> LogBins:
    """The finest bins that fit the memory.

    Args:
        widths: of every cell.
        covariance: whether products are summed.
        memory_budget: bytes.

    Raises:
        ValueError: if even the coarsest do not fit.
    """

    def needed(bits: int) -> int:
        bins = LogBins(bits)
        return sum(VectorSums.nbytes(w, bins=bins, covariance=covariance) for w in widths)

    for bits in range(MOST_BITS, FEWEST_BITS - 1, -1):
        if needed(bits) <= memory_budget:
            return LogBins(bits)
    least = needed(FEWEST_BITS)
    raise ValueError(
        f"`memory_budget` must be at least {least:,} bytes for {len(widths)} cells of up to "
        f"{max(widths)} dimensions, but got {memory_budget:,}. Choose fewer layers"
        + (", or set `covariance` to false." if covariance else ".")
    )
