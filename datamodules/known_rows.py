"""Which of the selected samples have a value of the target, and of which it cannot be read."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from datamodules.damaged_rows import DamagedRows, OnError
from datamodules.targets.robot import stored
from datamodules.targets.target import Target
from jax_bridge.shards import DamagedShardError, ShardDataset

Rows = Int64[np.ndarray, "_"]


class KnownRows(NamedTuple):
    """Rows that are split; reading the damaged ones fails, and so they are counted there."""

    rows: Rows
    """Those with a value, and those of which nobody knows because they are damaged."""
    damaged: Rows
    """Those whose value cannot be read."""


def known_rows(target: Target, dataset: ShardDataset, rows: Rows, on_error: OnError) -> KnownRows:
    """Asks the target which rows have a value.

    Raises:
        DamagedShardError: if a value cannot be read and this is not to be skipped.
        ValueError: if no row has a value.
    """
    damaged = np.zeros(len(rows), bool)
    try:
        known = target.known(dataset, rows)
    except DamagedShardError:
        if on_error == "raise" or not target.robot_tensors:
            raise
        damaged = _unreadable(target, dataset, rows)
        known = damaged.copy()
        if not damaged.all():
            known[~damaged] = target.known(dataset, rows[~damaged])
    if not known[~damaged].any():
        raise ValueError(
            f"`target` must be known of some samples, but got one that is known of none of "
            f"{len(rows)}, and {damaged.sum()} of them cannot be read. Choose another target."
        )
    return KnownRows(rows=rows[known], damaged=rows[damaged])


def _unreadable(target: Target, dataset: ShardDataset, rows: Rows) -> Bool[np.ndarray, " n"]:
    """Which rows lack a robot tensor that the index promises."""
    found = DamagedRows()
    for name in target.robot_tensors:
        there = stored(dataset, name, rows)
        dataset.read_robot(name, rows=rows[there], on_error="skip")
        # Rows that were skipped for their latents only can be read here.
        suspects = rows[there & np.isin(rows, list(dataset.damaged))]
        found.find(lambda row, name=name: dataset.read_robot(name, rows=row), suspects)
    return found.among(rows)
