"""Means and standard deviations of each dimension.

Letters: n pooled rows, d dimensions, u units, c cells (the rows of one unit on one side), s sides.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from lightning_modules.comparison.measure import Measure, Sides
from lightning_modules.comparison.pooled import Pooled


class Moments(Measure):
    """Shifts and ratios, by sums of the episodes' vectors."""

    titles: ClassVar = {
        "mean_shift": "shift of the means, root mean square over dimensions (std)",
        "largest_shift": "largest |t| of a dimension's shift",
        "std_ratio": "|log ratio of the stds|, mean over dimensions",
        "largest_std_ratio": "largest |log ratio| of a dimension's std",
    }

    def __init__(self, pooled: Pooled) -> None:
        was_a = pooled.exchange.observed > 0
        units = pooled.exchange.units
        cell = pooled.unit + units * ~was_a
        used, self._cell = np.unique(cell, return_inverse=True)
        self._unit = used % units
        self._units = units
        self._first = np.unique(self._cell, return_index=True)[1]
        points = pooled.vectors.astype(np.float64)
        self._sums = np.zeros((len(used), pooled.width))
        self._squares = np.zeros_like(self._sums)
        np.add.at(self._sums, self._cell, points)
        np.add.at(self._squares, self._cell, points**2)
        self._count = np.bincount(self._cell).astype(np.float64)
        self._varies = pooled.varies
        self._pooled = pooled

    def _statistics(self, sides: Sides) -> dict[str, Float64[np.ndarray, " d"]]:
        """Means, stds, the shift of A against B, and its standard error over episodes."""
        side = sides[self._first]
        found: dict[str, np.ndarray] = {}
        influence = np.zeros((self._units, self._sums.shape[1]))
        for name, sign in (("a", 1), ("b", -1)):
            mine = side == sign
            count = self._count[mine].sum()
            mean = self._sums[mine].sum(0) / count
            found[f"mean_{name}"] = mean
            found[f"var_{name}"] = np.maximum(self._squares[mine].sum(0) / count - mean**2, 0)
            # Of pairs both sides are one unit: what they share cancels. On one side a unit
            # stands once at most.
            own = (self._sums[mine] - self._count[mine][:, None] * mean) * (sign / count)
            influence[self._unit[mine]] += own
        present = len(np.unique(self._unit[side != 0]))
        error = np.sqrt(np.square(influence).sum(0) * present / max(present - 1, 1))
        shift = found["mean_a"] - found["mean_b"]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 1e-12, shift / error, 0.0)
            ratio = 0.5 * np.log(found["var_a"] / found["var_b"])
        known = np.isfinite(ratio) & self._varies
        return {**found, "shift": shift, "error": error, "t": t, "ratio": np.where(known, ratio, 0)}

    def values(self, sides: Sides) -> dict[str, float]:
        """The four numbers."""
        found = self._statistics(sides)
        t, ratio = np.abs(found["t"]), np.abs(found["ratio"])
        return {
            "mean_shift": float(np.sqrt(np.square(found["shift"][self._varies]).mean())),
            "largest_shift": float(t.max()),
            "std_ratio": float(ratio[self._varies].mean()),
            "largest_std_ratio": float(ratio.max()),
        }

    def by_dimension(self, sides: Sides) -> dict[str, Float64[np.ndarray, " d"]]:
        """Means and stds as captured, the shift in std, t, and the log ratio of the stds."""
        found, pooled = self._statistics(sides), self._pooled
        std = {name: np.sqrt(found[f"var_{name}"]) for name in ("a", "b")}
        within = np.sqrt((found["var_a"] + found["var_b"]) / 2)
        return {
            "mean_a": found["mean_a"] * pooled.std + pooled.mean,
            "mean_b": found["mean_b"] * pooled.std + pooled.mean,
            "shift": found["shift"] / np.where(within > 0, within, 1),
            "error": found["error"] / np.where(within > 0, within, 1),
            "t": found["t"],
            "std_a": std["a"] * pooled.std,
            "std_b": std["b"] * pooled.std,
            "log_std_ratio": found["ratio"],
        }
