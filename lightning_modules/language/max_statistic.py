"""Many questions at once: how large is the largest answer where nothing is there?

A statistic is compared with the distribution of the largest one over all places, so that the
chance of any false finding among all of them is the level. Places come in chunks (a layer at a
time); the same permutations serve all, so that only the running maximum is kept.

Letters: e episodes, t tests, r permutations.

Source: Westfall & Young, Resampling-Based Multiple Testing (1993), the single-step maxT method.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

PERMUTATIONS = 1000


class MaxStatistic:
    """The largest absolute statistic of each permutation over all places so far."""

    def __init__(self, permutations: int) -> None:
        self.largest = np.zeros(permutations)

    def add(self, statistics: Float64[np.ndarray, "r t"]) -> None:
        """Adds the statistics of more places; NaN is a place that cannot be asked."""
        known = np.where(np.isfinite(statistics), np.abs(statistics), 0)
        self.largest = np.maximum(self.largest, known.max(1, initial=0))

    def p_values(self, observed: Float64[np.ndarray, "*t"]) -> Float64[np.ndarray, "*t"]:
        """The share of permutations whose largest statistic is at least as large."""
        reached = (self.largest >= np.abs(observed)[..., None] - 1e-12).sum(-1)
        p = (1 + reached) / (1 + len(self.largest))
        return np.where(np.isfinite(observed), p, np.nan)


def permuted_labels(
    labels: Float64[np.ndarray, " e"],
    strata: Int64[np.ndarray, " e"],
    there: Bool[np.ndarray, "e s"],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Bool[np.ndarray, "r e"]]:
    """Labels, 0 or 1, exchanged among the episodes of a stratum (task) that a step still has.

    Who succeeds is done early, so that the share of failures rises with the step: labels go round
    only among episodes that are there. The order is the same at all steps, so that their statistics
    keep together.

    Returns:
        The labels at each step; those of episodes that are not there are as they were.
    """
    keys = np.random.default_rng(seed).random((permutations, len(labels)))
    found = []
    for step in range(there.shape[1]):
        at_step = np.tile(labels > 0.5, (permutations, 1))
        for stratum in np.unique(strata):
            here = np.flatnonzero((strata == stratum) & there[:, step])
            at_step[:, here] = (labels[here] > 0.5)[keys[:, here].argsort(axis=1)]
        found.append(at_step)
    return found


def sign_flips(
    episodes: int, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Float64[np.ndarray, "r e"]:
    """A sign an episode."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, episodes))


def flipped_t(
    changes: Float64[np.ndarray, "e t"], flips: Float64[np.ndarray, "r e"], *, fewest: int
) -> Float64[np.ndarray, "r t"]:
    """The t statistic of the mean change under each choice of signs; NaN with too few episodes."""
    known: Bool[np.ndarray, "e t"] = np.isfinite(changes)
    filled, n = np.where(known, changes, 0), known.sum(0)
    mean = flips @ filled / np.maximum(n, 1)
    spread = (np.square(filled).sum(0) / np.maximum(n, 1) - mean**2) / np.maximum(n - 1, 1)
    ok = (n >= fewest) & (spread > 1e-30)
    return np.where(ok, mean / np.sqrt(np.where(ok, spread, 1)), np.nan)
