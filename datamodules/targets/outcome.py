"""Whether the episode succeeded, and how far it is."""

import numpy as np
from jaxtyping import Float64

from datamodules.targets.index_column import ReadColumn
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset

Column = tuple[Float64[np.ndarray, "n 1"], tuple[str, ...]]


def _steps(dataset: ShardDataset, rows: Rows) -> tuple[Float64[np.ndarray, "n 1"], ...]:
    return tuple(ReadColumn(name)(dataset, rows)[0] for name in ("timestep", "episode_length"))


def time_to_go(dataset: ShardDataset, rows: Rows) -> Column:
    """Environment steps to the end of the episode."""
    timestep, length = _steps(dataset, rows)
    return length - timestep, ("steps",)


def progress(dataset: ShardDataset, rows: Rows) -> Column:
    """The share of the episode that is over, 0 to 1."""
    timestep, length = _steps(dataset, rows)
    return timestep / np.where(length > 0, length, np.nan), ("share",)
