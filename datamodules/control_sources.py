"""Features that are no latents of the policy: what a probe reads from them, it need not know.

Letters: b batch, c cells, d width, n rows of the index.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from datamodules.cell import Cell
from datamodules.field_choice import FieldChoice, as_tensor
from jax_bridge.shards import ShardDataset, open_dataset

STATE_COLUMN = "tensor.robot.state.offset"
"""The column of the index that says where a sample's robot state lies."""
WAVES = 4
"""Sine and cosine of so many whole turns over the longest episode."""


def has_robot_state(dataset: ShardDataset, rows: Int64[np.ndarray, " n"]) -> bool:
    """Whether every one of these rows has a robot state."""
    if STATE_COLUMN not in dataset.index.column_names:
        return False
    offsets = dataset.index.select([STATE_COLUMN]).take(rows)[STATE_COLUMN]
    return offsets.null_count == 0


class RobotStateSource:
    """The robot's state: what a probe gets from proprioception alone."""

    cells = (Cell(expert="robot", site="state", region="robot", pool="none"),)
    name = identity = "robot.state"

    def __init__(self, width: int) -> None:
        self.width = width

    def read(self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]) -> Float[Tensor, "b 1 d"]:
        """The states, as stored."""
        state = dataset.read_robot("state", rows=rows).reshape(len(rows), 1, self.width)
        return as_tensor(state.astype(np.float32, copy=False))


def time_features(share: Shaped[np.ndarray, " b"]) -> Float32[np.ndarray, "b d"]:
    """Smooth functions of the time as a share of the longest episode: powers and waves."""
    turns = 2 * np.pi * share[:, None] * np.arange(1, WAVES + 1)
    powers = share[:, None] ** np.arange(1, 4)
    return np.concatenate([powers, np.sin(turns), np.cos(turns)], axis=1).astype(np.float32)


class TimeSource:
    """The timestep: what a probe gets from the clock alone.

    Progress (timestep over the episode's length) is no part of it: when an episode will end is
    hindsight, which no latent has, and on failed episodes it gives the outcome away.
    """

    cells = (Cell(expert="time", site="timestep", region="episode", pool="none"),)
    name = "timestep"
    width = 3 + 2 * WAVES

    def __init__(self, timestep: Int64[np.ndarray, " n"], *, longest: int) -> None:
        self.timestep = timestep
        self.longest = max(longest, 1)

    @property
    def identity(self) -> str:
        """The same timestep is another share of a longer episode."""
        return f"timestep/{self.longest}"

    def read(self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]) -> Float[Tensor, "b 1 d"]:
        """The functions of each row's timestep."""
        return torch.from_numpy(time_features(self.timestep[rows] / self.longest))[:, None]


class UntrainedSource:
    """The same cells of the same samples, from a policy of the same architecture, untrained."""

    def __init__(
        self, path: str, *, choice: FieldChoice, row_there: Int64[np.ndarray, " n"], content: str
    ) -> None:
        """Prepares reading.

        Args:
            path: folder of the control data set.
            choice: the cells there.
            row_there: for each row here, the row of the same key there.
            content: digest of the control data.
        """
        self.path = path
        self.choice = choice
        self.row_there = row_there
        self.name = f"{choice.name} (control data)"
        self.identity = f"{content}/{choice.identity}"
        self._dataset: ShardDataset | None = None

    def __getstate__(self) -> dict[str, object]:
        """A worker opens the data set itself: open files do not travel."""
        return {**self.__dict__, "_dataset": None}

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Those of the main source."""
        return self.choice.cells

    @property
    def width(self) -> int:
        """That of the main source."""
        return self.choice.width

    def read(self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]) -> Float[Tensor, "b c d"]:
        """Reads the partners of these rows."""
        if self._dataset is None:
            self._dataset = open_dataset(self.path)
        return self.choice.read(self._dataset, self.row_there[rows])


def partner_rows(
    dataset: ShardDataset, control: ShardDataset, rows: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " n"]:
    """Finds the row of the same key in the control data for each of these rows, -1 elsewhere.

    Raises:
        ValueError: if a sample has no partner.
    """
    there = {key: row for row, key in enumerate(control.index["key"].to_pylist())}
    keys = dataset.index.take(rows)["key"].to_pylist()
    missing = [key for key in keys if key not in there]
    if missing:
        raise ValueError(
            f"`control_data` must hold every selected sample, but {control.path} lacks "
            f"{len(missing)} of {len(keys)}, {missing[0]} for one. Collect the same tasks, "
            "episodes and seed with random weights."
        )
    found = np.full(dataset.index.num_rows, -1, np.int64)
    found[rows] = [there[key] for key in keys]
    return found
