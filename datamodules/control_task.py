"""The control task: every episode is given the targets of another one.

What a probe scores on it, it can only have learnt by heart: who the target was exchanged with is
chance. On new episodes that is worth nothing, so a score above the trivial predictor's also
betrays a split that leaks.

Source: Hewitt & Liang (2019), Designing and Interpreting Probes with Control Tasks; the type
there (a word) is the episode here.

Letters: n rows of the index, e episodes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.stable_hash import stable_hash


def exchanged_episodes(
    episodes: Sequence[str], side_of_episode: Int64[np.ndarray, " e"], *, seed: int
) -> Int64[np.ndarray, " e"]:
    """Whose targets each episode is given: a random permutation within each side of the split.

    So every side keeps its shares of the classes.

    Args:
        episodes: their names.
        side_of_episode: which are exchanged among each other; -1 stays as it is.
        seed: of the permutation, which depends on it and on the names alone.
    """
    donor = np.arange(len(episodes))
    for side in np.unique(side_of_episode[side_of_episode >= 0]):
        members = np.flatnonzero(side_of_episode == side).tolist()
        takers = sorted(members, key=lambda i: stable_hash("takes", seed, episodes[i]))
        givers = sorted(members, key=lambda i: stable_hash("gives", seed, episodes[i]))
        donor[takers] = givers
    return donor


def control_rows(
    episode_of_row: Int64[np.ndarray, " n"],
    episodes: Sequence[str],
    parts: Mapping[str, Int64[np.ndarray, "_"]],
    *,
    seed: int,
) -> Int64[np.ndarray, " n"]:
    """The row whose target each row is given in the control task; its own where not selected.

    Trajectories stay whole: the rows of an episode run through those of its donor from the first
    to the last.

    Args:
        episode_of_row: the episode of each row of the index.
        episodes: the episodes' names.
        parts: the rows of each split; an episode that stands in several (a split by sample) is
            exchanged with any other.
        seed: see `exchanged_episodes`.
    """
    sides = np.zeros(len(episodes), np.int64)
    for place, rows in enumerate(parts.values()):
        sides[np.unique(episode_of_row[rows])] += 1 << place
    mixed = np.isin(sides, [1 << place for place in range(len(parts))], invert=True) & (sides > 0)
    if mixed.any():
        sides[sides > 0] = 1
    donor = exchanged_episodes(episodes, np.where(sides > 0, sides, -1), seed=seed)
    rows = np.sort(np.concatenate(list(parts.values())))
    own = episode_of_row[rows]
    order = np.argsort(own, kind="stable")
    count = np.bincount(own, minlength=len(episodes))
    start = np.cumsum(count) - count
    place = np.arange(len(rows)) - start[own[order]]
    given = donor[own[order]]
    taken = start[given] + place * count[given] // count[own[order]]
    result = np.arange(len(episode_of_row))
    result[rows[order]] = rows[order][taken]
    return result
