"""The contract of a target.

Letters: b batch, n rows.
"""

import dataclasses
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from datamodules.target_spec import TargetSpec
from jax_bridge.shards import ShardDataset

Rows = Int64[np.ndarray, "_"]
RobotTensor = Literal["state", "actions", "executed", "action_is_pad"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What the user says about targets besides their name."""

    encoder: str = "tfidf"
    """Of instructions: a built-in one, a folder or a name on the hub."""
    whiten: bool = False
    """Whether every direction of embedded instructions counts alike."""
    cache: Path = Path()
    """Where embeddings are kept."""


@runtime_checkable
class Target(Protocol):
    """Learns from the training rows what it needs, then gives each row's value.

    A target travels to worker processes, so it must be picklable.
    """

    needs_seen_tasks: bool
    """Whether it has no meaning for tasks that the training rows do not hold."""
    robot_tensors: tuple[RobotTensor, ...]
    """What it reads from the shards; all else that a target knows stands in the index."""

    def known(self, dataset: ShardDataset, rows: Rows) -> Bool[np.ndarray, " b"]:
        """Which rows have a value; asked once, before the split and before `fit`.

        Raises:
            ValueError: if the data set cannot have such values at all.
        """
        ...

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Prepares the target.

        Args:
            dataset: the data.
            rows: all selected rows that are known; only what must be known of every row (which
                classes there are) may come from here.
            training: the training rows; everything that is estimated comes from here.

        Raises:
            ValueError: if the rows cannot give this target.
        """
        ...

    def values(self, dataset: ShardDataset, rows: Rows) -> Shaped[np.ndarray, "b ..."]:
        """Class numbers (int64) or vectors (float32) of these rows.

        Raises:
            DamagedShardError: if one of them cannot be read.
        """
        ...
