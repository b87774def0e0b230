"""Groups of units, and how often each is drawn.

A metric that needs more than one number a unit (a count a class, say) would take memory in
proportion to the units. So units are dealt into a bounded number of groups; a group holds whole
units, so that drawing groups with replacement is still a bootstrap over independent clusters.

Letters: n clusters (episodes), g groups of units, r draws.
"""

import numpy as np
from jaxtyping import Float64, Int64

MOST_GROUPS = 256
"""More clusters than this hardly change an interval."""


def deal_units(
    unit_of_cluster: Int64[np.ndarray, " n"], most: int = MOST_GROUPS
) -> Int64[np.ndarray, " n"]:
    """The group of each cluster: its unit, or with many units one of `most` equal hands.

    Units are dealt at random (always the same way), since their order follows the tasks.
    """
    units = int(unit_of_cluster.max(initial=-1)) + 1
    if units <= most:
        return unit_of_cluster.astype(np.int64)
    order = np.random.default_rng(0).permutation(units)
    hand = np.empty(units, np.int64)
    hand[order] = np.arange(units) % most
    return hand[unit_of_cluster]


def draw_weights(
    count: Int64[np.ndarray, " g"], *, draws: int = 1000, seed: int = 0
) -> Float64[np.ndarray, "r g"]:
    """How often each group is drawn; groups without samples never are.

    With fewer than two groups there is nothing to draw: no rows.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    present = np.flatnonzero(count)
    n = len(present)
    weights = np.zeros((draws if n > 1 else 0, len(count)))
    if n > 1:
        random = np.random.default_rng(seed)
        weights[:, present] = random.multinomial(n, np.full(n, 1 / n), size=draws)
    return weights
