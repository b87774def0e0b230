"""A number with its interval; free of torch, so that reports can read it quickly."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from lightning_modules.metrics.small_samples import tail_share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number of one cell."""

    value: float
    low: float
    """Lower end of the 95 % interval; NaN where there are too few units for one."""
    high: float
    chance: float | None = None
    """What a predictor without the latents would get; None where that has no fixed value."""

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        """The number with its interval, as tables and messages show it."""
        ends = f" [{self.low:.3f}, {self.high:.3f}]" if self.known else ""
        return f"{self.value:.3f}{ends}"

    def to_json(self) -> dict[str, float | None]:
        """Plain types; NaN becomes null."""
        entry = dataclasses.asdict(self)
        return {word: None if x is None or math.isnan(x) else x for word, x in entry.items()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Estimate":
        """Reads what `to_json` wrote."""
        numbers = {
            word: math.nan if entry[word] is None else entry[word]
            for word in ("value", "low", "high")
        }
        return cls(**numbers, chance=entry.get("chance"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridEstimates:
    """One number of every cell.

    Letters: c cells, r draws.
    """

    value: Float64[np.ndarray, " c"]
    draws: Float64[np.ndarray, "c r"]
    """The number again, on units drawn with replacement; the same draws for every metric."""
    chance: float | None
    units: int | None = None
    """How many were drawn: the fewer, the further out are the percentiles of the interval."""

    def interval(self, level: float = 0.95) -> Float64[np.ndarray, "c 2"]:
        """Percentile interval; NaN where no draw gave a number."""
        return percentiles(self.draws, level, units=self.units)

    def cell(self, place: int) -> Estimate:
        """The number of one cell."""
        low, high = percentiles(self.draws[place : place + 1], units=self.units)[0]
        return Estimate(
            value=float(self.value[place]), low=float(low), high=float(high), chance=self.chance
        )

    def minus(self, other: "GridEstimates") -> "GridEstimates":
        """The difference to another group of cells (a control), draw by draw."""
        return GridEstimates(
            value=self.value - other.value, draws=self.draws - other.draws, chance=0.0,
            units=self.units,
        )  # fmt: skip


def percentiles(
    draws: Float64[np.ndarray, "c r"], level: float = 0.95, *, units: int | None = None
) -> Float64[np.ndarray, "c 2"]:
    """The middle `level` of each row; draws without a number (a class is missing) are left out.

    Args:
        draws: the number on units drawn with replacement.
        level: share of all cases in which the interval is to cover the truth.
        units: how many were drawn; the middle is taken wider where they are few.
    """
    share = (1 - level) / 2
    tail = 100 * (share if units is None or units < 2 else tail_share(level, units))
    ends = np.full((len(draws), 2), np.nan)
    for place, row in enumerate(draws):
        known = row[np.isfinite(row)]
        if len(known):
            ends[place] = np.percentile(known, [tail, 100 - tail])
    return ends
