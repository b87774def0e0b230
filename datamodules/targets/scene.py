"""The scene as the simulator knows it: symbolic relations and positions of objects."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from datamodules.targets.goal import truths
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset

Table = tuple[Float64[np.ndarray, "n k"], Sequence[str]]
ROWS_AT_ONCE = 4096


def _entries(dataset: ShardDataset, rows: Rows, word: str) -> list[dict[str, Any]]:
    """One dictionary of the truth a row; empty where there is none."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        texts = truths(dataset, rows[start : start + ROWS_AT_ONCE])
        found += [(json.loads(text).get(word) or {}) if text else {} for text in texts]
    if not any(found):
        raise ValueError(
            f"`target` needs {word} in the recorded truth, but none of {len(rows)} samples in "
            f"{dataset.path} has any. Collect from an environment that records them."
        )
    return found


def relations(dataset: ShardDataset, rows: Rows) -> Table:
    """Each predicate that all rows have as a question: 1 where it holds.

    Raises:
        ValueError: if no row has predicates, or rows of different tasks share none.
    """
    entries = _entries(dataset, rows, "predicates")
    names = _shared(entries, "predicates")
    table = [[float(entry.get(name, np.nan)) for name in names] for entry in entries]
    return np.asarray(table, np.float64).reshape(len(rows), len(names)), names


def object_positions(dataset: ShardDataset, rows: Rows) -> Table:
    """x, y and z of every object that all rows have, metres.

    Raises:
        ValueError: if no row has objects, or rows of different scenes share none.
    """
    entries = _entries(dataset, rows, "objects")
    names, nowhere = _shared(entries, "objects"), [np.nan] * 3
    table = [[x for name in names for x in entry.get(name, nowhere)[:3]] for entry in entries]
    axes = [f"{name}.{axis}" for name in names for axis in "xyz"]
    return np.asarray(table, np.float64).reshape(len(rows), len(axes)), axes


def _shared(entries: Sequence[dict[str, Any]], word: str) -> list[str]:
    """Names that all entries have which have any: others would be unknown where they are not."""
    names = set.intersection(*(set(entry) for entry in entries if entry))
    if not names:
        raise ValueError(
            f"`target` needs {word} that all selected samples share, but got samples of several "
            "scenes or goals without a common one. Select one task, or tasks of one scene."
        )
    return sorted(names)
