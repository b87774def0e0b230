"""From sums to what a card says: a line a dimension, and a few numbers for all of them.

Letters: d dimensions, k components.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lightning_modules.context.vector_sums import VectorSums

SHARES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
"""Of the quantiles."""
CONSTANT = 1e-6
"""A dimension that varies by less, relative to its own size, does not vary: that is rounding."""
NEARLY_CONSTANT = 0.05
"""Of the median std: dimensions below vary little, which LayerNorm does not hide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DimensionTable:
    """One number a dimension and column."""

    count: int
    mean: Float64[np.ndarray, " d"]
    std: Float64[np.ndarray, " d"]
    low: Float64[np.ndarray, " d"]
    high: Float64[np.ndarray, " d"]
    skew: Float64[np.ndarray, " d"]
    """NaN where a dimension does not vary."""
    quantiles: Float64[np.ndarray, "q d"]
    """At `SHARES`."""
    massive: Int64[np.ndarray, " d"]
    """In how many vectors it is massive."""

    @property
    def relative_std(self) -> Float64[np.ndarray, " d"]:
        """Std over the median std of all dimensions; NaN where that is 0."""
        median = float(np.median(self.std))
        return self.std / median if median > 0 else np.full_like(self.std, np.nan)

    @property
    def constant(self) -> Bool[np.ndarray, " d"]:
        """Which dimensions do not vary."""
        size = np.maximum(np.abs(self.low), np.abs(self.high))
        return self.std <= CONSTANT * size

    @property
    def nearly_constant(self) -> Bool[np.ndarray, " d"]:
        """Which vary far less than others."""
        return (self.relative_std < NEARLY_CONSTANT) & ~self.constant

    def columns(self) -> dict[str, np.ndarray]:
        """By name, as files hold them."""
        quantiles = {
            f"q{share:.2f}": row for share, row in zip(SHARES, self.quantiles, strict=True)
        }
        return {
            "mean": self.mean, "std": self.std, "relative_std": self.relative_std,
            "min": self.low, **quantiles, "max": self.high, "skew": self.skew,
            "constant": self.constant, "nearly_constant": self.nearly_constant,
            "massive": self.massive,
        }  # fmt: skip


def dimension_table(sums: VectorSums) -> DimensionTable:
    """Reads the table off the sums; at least one row must have come."""
    n = sums.count
    variance = sums.second / n
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(variance > 0, sums.third / n / variance**1.5, np.nan)
    found = sums.bins.quantiles(sums.counts, SHARES)
    return DimensionTable(
        count=n,
        mean=sums.mean,
        std=np.sqrt(sums.second / (n - 1)) if n > 1 else np.zeros(sums.width),
        low=sums.low,
        high=sums.high,
        skew=skew,
        quantiles=np.clip(found, sums.low, sums.high),
        massive=sums.massive,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectrum:
    """In how many directions vectors vary."""

    shares: Float64[np.ndarray, " k"]
    """Of the variance along each principal direction, the largest first."""
    directions: Float64[np.ndarray, "k d"]
    """The first principal directions."""
    effective_rank: float
    """exp of the entropy of the shares. Source: Roy & Vetterli (2007)."""
    participation: float
    """1 / sum of squared shares."""

    @property
    def for_90(self) -> int:
        """Directions that hold 90 % of the variance."""
        return int((self.shares.cumsum() < 0.9 - 1e-12).sum()) + 1


KEPT_DIRECTIONS = 32


def spectrum_of(covariance: Float64[np.ndarray, "d d"]) -> Spectrum | None:
    """The principal directions; None where nothing varies."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.clip(values[::-1], 0, None)
    total = values.sum()
    if not total > 0:
        return None
    shares = values / total
    known = shares[shares > 0]
    return Spectrum(
        shares=shares,
        directions=vectors[:, ::-1].T[:KEPT_DIRECTIONS].copy(),
        effective_rank=math.exp(-(known * np.log(known)).sum()),
        participation=float(1 / np.square(shares).sum()),
    )


def facts_of(table: DimensionTable, spectrum: Spectrum | None) -> dict[str, Any]:
    """The few numbers, in plain types."""
    known = np.isfinite(table.skew)
    facts: dict[str, Any] = {
        "count": table.count,
        "width": len(table.mean),
        "mean_of_means": float(table.mean.mean()),
        "std_of_means": float(table.mean.std()),
        "median_std": float(np.median(table.std)),
        "constant": int(table.constant.sum()),
        "nearly_constant": int(table.nearly_constant.sum()),
        "massive_dimensions": int((table.massive > 0).sum()),
        "most_skewed": float(np.abs(table.skew[known]).max()) if known.any() else None,
    }
    if spectrum is not None:
        facts |= {
            "effective_rank": spectrum.effective_rank,
            "participation": spectrum.participation,
            "directions_for_90_percent": spectrum.for_90,
            "first_share": float(spectrum.shares[0]),
        }
    return facts
