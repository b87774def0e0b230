"""Confidence intervals by bootstrap over clusters.

Frames of one episode resemble each other; drawing frames would give intervals far too narrow.
So whole episodes are drawn.

Letters: c cells, n clusters, r resamples.
"""

import numpy as np
from jaxtyping import Float64, Int64

from lightning_modules.metrics.small_samples import tail_share

DRAWS_AT_ONCE = 4_000_000
"""Clusters times resamples that are held in memory together."""


def cluster_bootstrap(
    total: Float64[np.ndarray, "c n"],
    count: Int64[np.ndarray, " n"],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Float64[np.ndarray, "c 2"]:
    """Interval of the mean over samples from clusters drawn with replacement.

    The ends are percentiles, further out the fewer clusters there are (see `small_samples`). The
    same draws serve every cell, so that intervals of cells can be compared. With a single cluster
    no interval can be given: both ends are NaN.

    Args:
        total: sum of the value in each cluster.
        count: number of samples in each cluster; clusters without samples are left out.
        level: share of all cases in which the interval is to cover the truth.
        resamples: how many times the clusters are drawn.
        seed: of the draws.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; clusters as
    in Cameron, Gelbach & Miller (2008).
    """
    present = np.flatnonzero(count)
    if len(present) < 2:
        return np.full((total.shape[0], 2), np.nan)
    n, random = len(present), np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // n)
    parts = []
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        parts.append((total[:, present] @ draws.T) / (draws @ count[present]))
    means = np.concatenate(parts, axis=1)
    tail = 100 * tail_share(level, n)
    return np.percentile(means, [tail, 100 - tail], axis=1).T
