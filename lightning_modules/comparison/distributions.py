"""How the distributions of each dimension differ: Kolmogorov-Smirnov, Wasserstein, KL, JS.

Single comparisons of scipy take milliseconds a dimension; an exchange takes all dimensions, and
there are hundreds. So rows are sorted once, and an exchange only changes the steps of the two
distribution functions. The test holds these numbers against scipy's.

Letters: n pooled rows, d dimensions, b bins.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64
from scipy import stats
from scipy.spatial.distance import jensenshannon

from lightning_modules.comparison.measure import Measure, Sides
from lightning_modules.comparison.pooled import Pooled

BINS = 64
SMOOTHING = 0.5
"""Added to every bin's count: without, one empty bin makes the divergence infinite."""
AT_ONCE = 2**18
"""Numbers that are worked on together."""


class StepFunctions(Measure):
    """KS and Wasserstein-1 from the distribution functions of both sides."""

    titles: ClassVar = {
        "wasserstein": "Wasserstein-1 of a dimension, mean (std)",
        "ks": "Kolmogorov-Smirnov of a dimension, mean",
        "largest_ks": "largest Kolmogorov-Smirnov of a dimension",
    }

    def __init__(self, pooled: Pooled) -> None:
        columns = np.ascontiguousarray(pooled.vectors.T)
        self._order = np.argsort(columns, axis=1, kind="stable").astype(np.int32)
        ordered = np.take_along_axis(columns, self._order, axis=1)
        self._gaps: Float32[np.ndarray, "d n"] = np.diff(ordered, axis=1, append=ordered[:, -1:])
        self._varies = pooled.varies

    def by_dimension(self, sides: Sides) -> dict[str, Float64[np.ndarray, " d"]]:
        """Both distances of each dimension."""
        step = np.where(sides > 0, 1 / max((sides > 0).sum(), 1), 0.0)
        step -= np.where(sides < 0, 1 / max((sides < 0).sum(), 1), 0.0)
        step = step.astype(np.float32)
        width, n = self._order.shape
        found = np.zeros((2, width))
        rows = max(1, AT_ONCE // n)
        for start in range(0, width, rows):
            part = slice(start, start + rows)
            apart = np.abs(np.cumsum(step[self._order[part]], axis=1))
            gaps = self._gaps[part]
            found[0, part] = np.einsum("dn,dn->d", apart, gaps)
            # Between equal numbers the functions are not yet where they jump to.
            found[1, part] = np.where(gaps > 0, apart, 0).max(axis=1)
        return {"wasserstein": found[0], "ks": found[1]}

    def values(self, sides: Sides) -> dict[str, float]:
        """Means over the dimensions that vary, and the largest."""
        found = self.by_dimension(sides)
        means = {name: float(column[self._varies].mean()) for name, column in found.items()}
        return {**means, "largest_ks": float(found["ks"].max())}


class Divergences(Measure):
    """KL and Jensen-Shannon between histograms of each dimension, in nats."""

    titles: ClassVar = {
        "kl": f"Kullback-Leibler of A from B of a dimension, mean (nats, {BINS} bins)",
        "js": f"Jensen-Shannon of a dimension, mean (nats, {BINS} bins)",
    }

    def __init__(self, pooled: Pooled) -> None:
        low, high = np.percentile(pooled.vectors, [0.5, 99.5], axis=0)
        width = np.where(high > low, high - low, 1)
        place = np.floor((pooled.vectors - low) / width * BINS)
        place = np.clip(place, 0, BINS - 1).astype(np.int64)
        self._place = place + BINS * np.arange(pooled.width)
        self._varies = pooled.varies

    def _shares(self, sides: Sides, sign: int) -> Float64[np.ndarray, "b d"]:
        width = self._place.shape[1]
        found = np.bincount(self._place[sides == sign].ravel(), minlength=BINS * width)
        counts = found.reshape(width, BINS).T + SMOOTHING
        return counts / counts.sum(0)

    def by_dimension(self, sides: Sides) -> dict[str, Float64[np.ndarray, " d"]]:
        """Both divergences of each dimension."""
        a, b = self._shares(sides, 1), self._shares(sides, -1)
        return {"kl": np.asarray(stats.entropy(a, b)), "js": np.asarray(jensenshannon(a, b) ** 2)}

    def values(self, sides: Sides) -> dict[str, float]:
        """Means over the dimensions that vary."""
        found = self.by_dimension(sides)
        return {name: float(column[self._varies].mean()) for name, column in found.items()}
