"""Can a linear probe tell which side a vector comes from?

Ridge regression with held-out episodes. What it says of every held-out row is a linear map of the
labels, the same for all exchanges: so the probe is fitted anew for each of them at the cost of one
product.

Letters: n pooled rows, d dimensions.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from lightning_modules.comparison.measure import Measure, Sides
from lightning_modules.comparison.pooled import Pooled

FOLDS = 5
STRENGTH = 1.0
"""The penalty, in mean squared lengths of a vector."""


class WhichModel(Measure):
    """Balanced accuracy of a ridge probe on episodes that it has not seen."""

    titles: ClassVar = {"probe": "which model? balanced accuracy of a linear probe, new episodes"}

    def __init__(self, pooled: Pooled) -> None:
        products = pooled.products + 1  # a constant beside the dimensions
        units = pooled.exchange.units
        dealt = np.random.default_rng(pooled.seed).permutation(units) % FOLDS
        fold = dealt[pooled.unit]
        penalty = STRENGTH * np.trace(products) / len(products)
        self._map = np.zeros_like(products)
        for number in range(FOLDS):
            test, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if not len(test) or not len(train):
                continue
            within = products[np.ix_(train, train)] + penalty * np.eye(len(train))
            said = np.linalg.solve(within, products[np.ix_(train, test)]).T
            self._map[np.ix_(test, train)] = said

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """With fewer episodes than folds."""
        units = pooled.exchange.units
        if units >= 2 * FOLDS:
            return ""
        return f"a probe needs {2 * FOLDS} episodes or more, and there are {units}"

    def outputs(self, sides: Sides) -> Float64[np.ndarray, " n"]:
        """What the probe says of each row; above 0 is A."""
        a, b = sides > 0, sides < 0
        return self._map @ np.where(a, 1 / max(a.sum(), 1), np.where(b, -1 / max(b.sum(), 1), 0.0))

    def right(self, sides: Sides) -> Bool[np.ndarray, " n"]:
        """Which rows it gets right."""
        return self.outputs(sides) * sides > 0

    def values(self, sides: Sides) -> dict[str, float]:
        """The mean of the shares that are right in A and in B."""
        right = self.right(sides)
        return {"probe": float((right[sides > 0].mean() + right[sides < 0].mean()) / 2)}
