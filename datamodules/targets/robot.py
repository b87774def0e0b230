"""The robot's state and actions, read from the shards."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from datamodules.targets.target import RobotTensor, Rows
from jax_bridge.shards import ShardDataset

Table = tuple[Float[np.ndarray, "n k"], Sequence[str]]


def stored(dataset: ShardDataset, name: RobotTensor, rows: Rows) -> Bool[np.ndarray, " n"]:
    """Which rows have this tensor."""
    column = f"tensor.robot.{name}.offset"
    if column not in dataset.index.column_names:
        return np.zeros(len(rows), bool)
    return dataset.index.select([column]).take(rows)[column].is_valid().to_numpy()


def _read(dataset: ShardDataset, name: RobotTensor, rows: Rows) -> Float[np.ndarray, "n k"]:
    """One row of numbers a sample; NaN where there is none.

    Raises:
        ValueError: if no row has any, or one is not finite; names the sample.
    """
    there = stored(dataset, name, rows)
    if not there.any():
        raise ValueError(
            f"`target` needs the robot's {name}, but none of {len(rows)} samples in "
            f"{dataset.path} has any. Choose another target."
        )
    numbers = dataset.read_robot(name, rows=rows[there])
    numbers = numbers.reshape(len(numbers), -1)
    finite = np.isfinite(numbers).all(1)
    if not finite.all():
        key = dataset.index["key"][int(rows[there][finite.argmin()])]
        raise ValueError(
            f"`target` needs finite numbers, but the robot's {name} of sample {key} in "
            f"{dataset.path} is NaN or infinite. Leave that episode out."
        )
    table = np.full((len(rows), numbers.shape[1]), np.nan)
    table[there] = numbers
    return table


def _numbered(word: str, table: Float[np.ndarray, "n k"]) -> Table:
    return table, [f"{word}.{place}" for place in range(table.shape[1])]


def robot_state(dataset: ShardDataset, rows: Rows) -> Table:
    """The whole state."""
    return _numbered("state", _read(dataset, "state", rows))


def gripper_opening(dataset: ShardDataset, rows: Rows) -> Table:
    """The distance of the two fingers, the last two numbers of the state, in its own units.

    Raises:
        ValueError: if the state is not one of eight numbers, as that of a Panda arm is.
    """
    state = _read(dataset, "state", rows)
    if state.shape[1] != 8:
        raise ValueError(
            f"`target` gripper_opening needs states of 8 numbers that end with two fingers, but "
            f"got {state.shape[1]}. Use target robot_state."
        )
    return state[:, 6:7] - state[:, 7:8], ("opening",)


def next_action(dataset: ShardDataset, rows: Rows) -> Table:
    """The action that was really sent."""
    return _numbered("action", _read(dataset, "executed", rows))


def action_chunk(dataset: ShardDataset, rows: Rows) -> Table:
    """All actions of the chunk; samples whose chunk is padded are unknown."""
    table = _read(dataset, "actions", rows)
    there = stored(dataset, "action_is_pad", rows)
    if there.any():
        padded = dataset.read_robot("action_is_pad", rows=rows[there]).any(1)
        table[np.flatnonzero(there)[padded]] = np.nan
    return _numbered("action", table)
