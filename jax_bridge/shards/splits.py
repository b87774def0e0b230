"""Training, validation and test rows that stay apart, also when data is added."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jax_bridge.shards.index_table import IndexTable
from jax_bridge.shards.stable_hash import stable_hash

NAMES = ("train", "val", "test")
BLOCK = 10
"""Consecutive episodes of one task (tasks of one suite) that are dealt out together."""
_GROUPS: dict[str, tuple[str, ...]] = {
    "episode": ("suite", "task_id", "episode"),
    "task": ("suite", "task_id"),
    "suite": ("suite",),
    "sample": ("key",),
}


def split_rows(
    index: IndexTable | pa.Table,
    *,
    by: str = "episode",
    fractions: Sequence[float | int] = (0.8, 0.1, 0.1),
    seed: int = 0,
    allow_leakage: bool = False,
) -> dict[str, np.ndarray]:
    """Splits the rows of an index.

    Where a group goes is a pure function of the seed and its own name, so that adding data never
    moves it. Episodes are stratified by task: of each ten consecutive numbers of a task, a
    permutation that depends on (seed, suite, task) deals the shares out, ±1.

    Args:
        index: a data set's `index` or `metadata`.
        by: what is kept together: `episode`, `task` (unseen instructions), `suite`, or `sample`.
        fractions: of training, validation and test; they add up to 1.
        seed: of the dealing.
        allow_leakage: needed for `sample`, where steps of one episode fall on both sides.

    Returns:
        Row numbers of `train`, `val` and `test`, rising; one may be empty if groups are few.

    Raises:
        ValueError: if the fractions do not add up to 1, or samples were to leak.
    """
    if by not in _GROUPS:
        raise ValueError(f"`by` must be one of {', '.join(_GROUPS)}, but got {by!r}.")
    if by == "sample" and not allow_leakage:
        raise ValueError(
            "`by` must be episode, task or suite, but got 'sample', which puts neighbouring steps "
            "of one episode on both sides. Set `allow_leakage` to do it all the same."
        )
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"`fractions` must be three shares that add up to 1, but got {tuple(fractions)}."
        )
    bounds = list(itertools.accumulate(shares.tolist()))[:2]
    return _deal(index, by, bounds, seed)


def _deal(
    index: IndexTable | pa.Table, by: str, bounds: Sequence[float], seed: int
) -> dict[str, np.ndarray]:
    table = IndexTable.of(index) if isinstance(index, pa.Table) else index
    groups = table.groups(_GROUPS[by])
    slots = functools.cache(_slots)
    places = np.asarray([_position(name, seed, slots) for name in groups.names], np.float64)
    side = np.searchsorted(bounds, places, side="right")[groups.of_row]
    return {name: np.flatnonzero(side == i).astype(np.int64) for i, name in enumerate(NAMES)}


def _position(
    name: tuple[Any, ...], seed: int, slots: Callable[[int, tuple[Any, ...], int], list[int]]
) -> float:
    """A place in [0, 1) that a group keeps for ever."""
    *stratum, number = name
    if not isinstance(number, int):
        return stable_hash("split", seed, *name) / 2**64
    block, slot = divmod(number, BLOCK)
    place = slots(seed, tuple(stratum), block).index(slot)
    return (place + stable_hash("place", seed, *name) / 2**64) / BLOCK


def _slots(seed: int, stratum: tuple[Any, ...], block: int) -> list[int]:
    """A block's episodes in the order in which they are dealt."""
    ranks = [stable_hash("split", seed, *stratum, block, i) for i in range(BLOCK)]
    return sorted(range(BLOCK), key=ranks.__getitem__)
