"""Targets that are numbers, standardised over the training rows, and yes-or-no questions.

Letters: n rows, k dimensions.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32

from datamodules.target_spec import TargetSpec
from datamodules.targets.target import RobotTensor, Rows
from jax_bridge.shards import ShardDataset

Numbers = Float[np.ndarray, "n k"]
ReadNumbers = Callable[[ShardDataset, Rows], tuple[Numbers, Sequence[str]]]
"""The numbers of each row, NaN where unknown, and the names of the dimensions (or none)."""


class Quantities:
    """Numbers by regression; dimensions that never vary in training are left out.

    All rows are read once and held in memory: 4 bytes a row and dimension.

    Args:
        name: of the target.
        read: gives the numbers.
        questions: whether they are 0 or 1, each a question by itself.
        tensors: of the robot that `read` reads.
    """

    needs_seen_tasks = False

    def __init__(
        self,
        name: str,
        read: ReadNumbers,
        *,
        questions: bool = False,
        tensors: tuple[RobotTensor, ...] = (),
    ) -> None:
        self.name = name
        self.read = read
        self.questions = questions
        self.robot_tensors = tensors
        self.dimensions: tuple[str, ...] = ()
        self.table = np.zeros((0, 0), np.float32)
        self.place = np.zeros(0, np.int64)

    def known(self, dataset: ShardDataset, rows: Rows) -> Bool[np.ndarray, " n"]:
        """Reads the numbers of all rows; a row that lacks one is unknown."""
        numbers, names = self.read(dataset, rows)
        # Float64 until they are standardised: large numbers may differ by little.
        self.table, self.dimensions = numbers.astype(np.float64), tuple(names)
        self.place = np.full(dataset.index.num_rows, -1, np.int64)
        self.place[rows] = np.arange(len(rows))
        return np.asarray(~np.isnan(self.table).any(1))

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Estimates mean and deviation.

        Raises:
            ValueError: if nothing varies or can be read, or a number is infinite; names the sample.
        """
        finite = np.isfinite(self.table[self.place[rows]]).all(1)
        if not finite.all():
            key = dataset.index["key"][int(rows[finite.argmin()])]
            raise ValueError(
                f"`target` {self.name} needs finite numbers, but that of sample {key} in "
                f"{dataset.path} is infinite. Leave that episode out."
            )
        if len(training) == 0:
            raise ValueError(
                f"`target` {self.name} needs training samples, but got none that can be read. "
                f"`vla-lens shards verify {dataset.path}` names the places."
            )
        given = self.table[self.place[training]]
        mean, std = given.mean(0), given.std(0)
        varies = std > 1e-7 * np.maximum(np.abs(mean), 1e-12)
        if not varies.any():
            raise ValueError(
                f"`target` {self.name} needs values that vary, but got the same in all "
                f"{len(training)} training samples. Choose another target or other samples."
            )
        if not self.questions:
            self.table = (self.table[:, varies] - mean[varies]) / std[varies]
        else:
            self.table = self.table[:, varies]
        self.table = self.table.astype(np.float32)
        names = zip(self.dimensions, varies, strict=False)
        return TargetSpec(
            name=self.name, objective="bce" if self.questions else "mse", size=int(varies.sum()),
            trivial=tuple(self.values(dataset, training).mean(0, dtype=np.float64).tolist()),
            basis=hashlib.sha256(given.tobytes()).hexdigest(),
            dimensions=tuple(name for name, kept in names if kept),
        )  # fmt: skip

    def values(self, dataset: ShardDataset, rows: Rows) -> Float32[np.ndarray, "n k"]:
        """Standardised numbers, or 0 and 1.

        Raises:
            DamagedShardError: if one of the rows could not be read before.
        """
        places = self.place[rows]
        if (places < 0).any():
            self.read(dataset, rows[places < 0])  # it says why
            raise ValueError(
                f"`path` must hold the same data from beginning to end, but {dataset.path} "
                "changed: a sample that could not be read now can. Begin again."
            )
        return self.table[places]
