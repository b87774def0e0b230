"""Which vectors belong to which side, as observed, as it might be, and with episodes left out.

If A and B do not differ, an episode could as well have been one of the other side: exchanging whole
episodes between the sides gives the distribution of every measure where there is no difference.
Frames are never exchanged one by one: those of an episode resemble each other.

A side is written +1 (A), -1 (B) or 0 (left out) for each row of the pooled vectors.

Letters: n pooled rows, u units (episodes), r permutations, g groups.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Int8, Int64

from lightning_modules.comparison.side import Side
from lightning_modules.statistics.permutation import draw_permutations

FEWEST_EXCHANGES = 40
"""With fewer different exchanges no p-value could be below 0.05."""
GROUPS = 20
"""Groups of episodes that are left out in turn for intervals."""

Rows = Int8[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
    """Sides of all rows."""

    observed: Rows
    permuted: Int8[np.ndarray, "r n"]
    without: Int8[np.ndarray, "g n"]
    """As observed, without one group of episodes each."""
    unit: Int64[np.ndarray, " n"]
    """The episode of each row: those of both sides of a pair are one."""
    paired: bool
    stratified: bool
    """Whether episodes are exchanged within their task only."""
    possible: float
    """How many different exchanges there are."""

    @property
    def units(self) -> int:
        """How many episodes there are."""
        return int(self.unit.max()) + 1


def plan_exchange(a: Side, b: Side, *, paired: bool, permutations: int, seed: int = 0) -> Exchange:
    """Draws the exchanges.

    Raises:
        ValueError: if there are too few episodes for any test.
    """
    size = len(a.keys)
    observed = np.concatenate([np.ones(size, np.int8), -np.ones(len(b.keys), np.int8)])
    if paired:
        unit = np.concatenate([a.unit, a.unit])
        side = np.ones(len(a.episodes), np.int8)
        flips = np.random.default_rng(seed).choice(
            np.array([-1, 1], np.int8), size=(permutations, len(side))
        )
        permuted, possible, stratified = observed * flips[:, unit], 2.0 ** (len(side) - 1), False
    else:
        unit = np.concatenate([a.unit, b.unit + len(a.episodes)])
        side = np.repeat(np.array([1, -1], np.int8), [len(a.episodes), len(b.episodes)])
        blocks = blocks_of(a, b)
        stratified = bool(blocks.any())
        permuted = side[draw_permutations(blocks, permutations, seed)][:, unit]
        possible = exchanges(blocks, side)
    if possible < FEWEST_EXCHANGES:
        raise ValueError(
            f"`A` and `B` must hold enough episodes to exchange, but got {len(a.episodes)} and "
            f"{len(b.episodes)}, which allow {possible:.0f} different exchanges; "
            f"{FEWEST_EXCHANGES} are needed for any p-value below 0.05. Capture more episodes."
        )
    return Exchange(
        observed=observed, permuted=permuted, without=left_out(observed, unit, side, seed),
        unit=unit, paired=paired, stratified=stratified, possible=possible,
    )  # fmt: skip


def blocks_of(a: Side, b: Side) -> Int64[np.ndarray, " u"]:
    """The task of each episode, where each task has two of them or more on both sides; else 0."""
    tasks = [*a.tasks, *b.tasks]
    names = sorted(set(tasks))
    fewest = min(min(side.tasks.count(name) for name in names) for side in (a, b))
    if fewest < 2:
        return np.zeros(len(tasks), np.int64)
    return np.array([names.index(task) for task in tasks], np.int64)


def exchanges(blocks: Int64[np.ndarray, " u"], side: Int8[np.ndarray, " u"]) -> float:
    """How many different ways there are to deal the units; A and B are alike."""
    ways = 0.0
    for block in np.unique(blocks):
        here = side[blocks == block]
        ways += math.log(math.comb(len(here), int((here > 0).sum())))
    return math.exp(min(ways, 600.0)) / 2


def left_out(
    observed: Rows, unit: Int64[np.ndarray, " n"], side: Int8[np.ndarray, " u"], seed: int
) -> Int8[np.ndarray, "g n"]:
    """The sides without one group of units each; groups hold as many of A as others do."""
    random = np.random.default_rng(seed + 1)
    order = np.lexsort([random.random(len(side)), side])
    groups = min(GROUPS, len(side))
    group = np.empty(len(side), np.int64)
    group[order] = np.arange(len(side)) % groups
    kept = group[unit] != np.arange(groups)[:, None]
    return np.where(kept, observed, 0).astype(np.int8)
