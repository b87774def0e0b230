"""The robot's state, each dimension standardised over the training rows."""

import hashlib

import numpy as np
from jaxtyping import Float32

from datamodules.target_spec import TargetSpec
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset


class RobotState:
    """The state vector; dimensions that never vary are left out."""

    needs_seen_tasks = False

    def __init__(self) -> None:
        self.mean = np.zeros(0, np.float32)
        self.std = np.zeros(0, np.float32)
        self.varies = np.zeros(0, bool)

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Estimates mean and standard deviation.

        Raises:
            ValueError: if the state never varies, or is NaN or infinite; names the sample.
        """
        finite = np.isfinite(dataset.read_robot("state", rows=rows)).all(1)
        if not finite.all():
            key = dataset.index["key"][int(rows[finite.argmin()])]
            raise ValueError(
                f"`target` robot_state needs finite states, but that of sample {key} in "
                f"{dataset.path} is NaN or infinite. Leave that episode out."
            )
        stored = dataset.read_robot("state", rows=training)
        state = stored.astype(np.float64)
        std = state.std(0)
        self.varies = std > 1e-7 * np.maximum(np.abs(state.mean(0)), 1e-12)
        if not self.varies.any():
            raise ValueError(
                "`target` robot_state needs a state that varies, but got the same in all "
                f"{len(training)} training samples. Choose another target."
            )
        self.mean = state.mean(0)[self.varies].astype(np.float32)
        self.std = std[self.varies].astype(np.float32)
        mean = self.values(dataset, training).mean(0)
        return TargetSpec(
            name="robot_state", objective="cosine", size=len(mean), trivial=tuple(mean.tolist()),
            basis=hashlib.sha256(stored.tobytes()).hexdigest(),
        )  # fmt: skip

    def values(self, dataset: ShardDataset, rows: Rows) -> Float32[np.ndarray, "b k"]:
        """Standardised states."""
        state = dataset.read_robot("state", rows=rows)[:, self.varies]
        return ((state - self.mean) / self.std).astype(np.float32)
