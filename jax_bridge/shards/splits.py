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
Sides = Callable[[np.ndarray], np.ndarray]
"""From places in [0, 1) to 0 training, 1 validation, 2 test."""


def split_rows(
    index: IndexTable | pa.Table,
    *,
    by: str = "episode",
    fractions: Sequence[float | int] = (0.8, 0.1, 0.1),
    seed: int = 0,
    allow_leakage: bool = False,
    folds: int | None = None,
    fold: int = 0,
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
        folds: cuts into so many equal parts, in place of `fractions`; at least 3.
        fold: the part that is tested; the next one validates, all others train.

    Returns:
        Row numbers of `train`, `val` and `test`, rising; one may be empty if groups are few.

    Raises:
        ValueError: if the fractions do not add up to 1, there is no such fold, or samples were to
            leak.
    """
    if by not in _GROUPS:
        raise ValueError(f"`by` must be one of {', '.join(_GROUPS)}, but got {by!r}.")
    if by == "sample" and not allow_leakage:
        raise ValueError(
            "`by` must be episode, task or suite, but got 'sample', which puts neighbouring steps "
            "of one episode on both sides. Set `allow_leakage` to do it all the same."
        )
    if folds is not None:
        return _deal(index, by, _fold_sides(folds, fold), seed)
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"`fractions` must be three shares that add up to 1, but got {tuple(fractions)}."
        )
    bounds = np.asarray(list(itertools.accumulate(shares.tolist()))[:2])
    return _deal(index, by, lambda places: np.searchsorted(bounds, places, side="right"), seed)


def _fold_sides(folds: int, fold: int) -> Sides:
    """Test is the fold, validation the next one, training the rest."""
    if folds < 3 or not 0 <= fold < folds:
        raise ValueError(
            f"`fold` must lie in 0 to `folds` - 1, of at least 3 folds, but got fold {fold} of "
            f"{folds}."
        )
    side = np.zeros(folds, np.int64)
    side[[fold, (fold + 1) % folds]] = NAMES.index("test"), NAMES.index("val")
    return lambda places: side[np.minimum((places * folds).astype(np.int64), folds - 1)]


def _deal(index: IndexTable | pa.Table, by: str, sides: Sides, seed: int) -> dict[str, np.ndarray]:
    table = IndexTable.of(index) if isinstance(index, pa.Table) else index
    groups = table.groups(_GROUPS[by])
    slots = functools.cache(_slots)
    places = np.asarray([_position(name, seed, slots) for name in groups.names], np.float64)
    side = sides(places)[groups.of_row]
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
