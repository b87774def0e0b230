"""Does what is measured at a step go with the episode's success?

Letters: e episodes, t tests (a quantity of a cell at a step each), r draws or permutations.
"""

import numpy as np
from jaxtyping import Float64
from scipy import stats

FEWEST = 3
"""Successes and failures that must still be running at a step."""


def correlations(
    values: Float64[np.ndarray, "e t"],
    success: Float64[np.ndarray, "r e"],
    weights: Float64[np.ndarray, "r e"] | None = None,
) -> Float64[np.ndarray, "r t"]:
    """Point-biserial correlation for each row of labels, episodes counting by their weights.

    NaN where fewer than `FEWEST` successes or failures have a value, or nothing varies.
    """
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    moved = np.where(known, values - np.where(known, values, 0).sum(0) / count, 0)
    w = np.ones_like(success) if weights is None else weights
    n, y = w @ known, (w * success) @ known
    v, vv, vy = w @ moved, w @ moved**2, (w * success) @ moved
    product = (n * vv - v**2) * (n * y - y**2)
    fewest = FEWEST if weights is None else 1
    ok = (y >= fewest) & (n - y >= fewest) & (product > 1e-24 * np.maximum(n, 1) ** 4)
    return np.where(ok, (n * vy - v * y) / np.sqrt(np.where(ok, product, 1)), np.nan)


def standardised(
    observed: Float64[np.ndarray, " t"], permuted: Float64[np.ndarray, "r t"]
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, "r t"]]:
    """Both in units of the permutations' scatter around their mean.

    Labels are exchanged within a task, so the mean is what tasks alone bring about.
    """
    mean, scatter = permuted.mean(0), permuted.std(0)
    ok = scatter > 1e-9
    scale = np.where(ok, scatter, np.nan)
    return (observed - mean) / scale, (permuted - mean) / scale


def areas(
    values: Float64[np.ndarray, "e t"], success: Float64[np.ndarray, " e"], level: float = 0.95
) -> Float64[np.ndarray, "3 t"]:
    """The area under the ROC curve of success, with its interval; NaN where there are too few.

    Source: DeLong, DeLong & Clarke-Pearson (1988); interval on the logit's scale, as Pepe (2003).
    """
    found = np.full((3, values.shape[1]), np.nan)
    z = float(stats.norm.ppf((1 + level) / 2))
    for test, column in enumerate(values.T):
        known = np.isfinite(column)
        good, bad = column[known & (success == 1)], column[known & (success == 0)]
        if min(len(good), len(bad)) >= FEWEST:
            found[:, test] = _area(good, bad, z)
    return found


def _area(
    good: Float64[np.ndarray, " m"], bad: Float64[np.ndarray, " n"], z: float
) -> tuple[float, float, float]:
    ranks = stats.rankdata(np.concatenate([good, bad]))
    of_good = (ranks[: len(good)] - stats.rankdata(good)) / len(bad)
    of_bad = 1 - (ranks[len(good) :] - stats.rankdata(bad)) / len(good)
    area = float(of_good.mean())
    error = np.sqrt(of_good.var(ddof=1) / len(good) + of_bad.var(ddof=1) / len(bad))
    if not 0 < area < 1:  # nothing varies: the rule of three, for pairs of independent episodes
        width = 3 / min(len(good), len(bad))
        return area, max(0.0, area - width), min(1.0, area + width)
    half = z * error / (area * (1 - area))
    centre = np.log(area / (1 - area))
    low, high = (1 / (1 + np.exp(-np.clip(centre + side, -30, 30))) for side in (-half, half))
    return area, float(low), float(high)
