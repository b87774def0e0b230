"""Means over episodes at each step, with bands.

Letters: e episodes, t places (a cell at a step each), r draws.
"""

import numpy as np
from jaxtyping import Float64

from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.unit_groups import draw_weights

FEWEST = 6
"""Episodes that a band needs: of fewer, no drawing of episodes gives one that is wide enough."""


def mean_with_band(
    values: Float64[np.ndarray, "e t"], *, draws: int, seed: int
) -> Float64[np.ndarray, "4 t"]:
    """Mean, both ends of its 95 % band, and the number of episodes; NaN where there is none.

    Episodes are drawn with replacement, the same ones for every place.
    """
    known = np.isfinite(values)
    filled, n = np.where(known, values, 0), np.asarray(known.sum(0))
    mean = np.where(n > 0, filled.sum(0) / np.maximum(n, 1), np.nan)
    present = np.asarray(known.any(1), np.int64)
    weights = draw_weights(present, draws=draws, seed=seed)
    count = weights @ known
    drawn = np.where(count > 0, weights @ filled / np.maximum(count, 1), np.nan)
    low, high = np.full((2, len(n)), np.nan)
    for episodes in np.unique(n[n >= FEWEST]).tolist():
        here = n == episodes
        low[here], high[here] = percentiles(drawn.T[here], units=episodes).T
    return np.stack([mean, low, high, n.astype(np.float64)])
