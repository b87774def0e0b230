"""Which task the episode belongs to."""

import numpy as np
from jaxtyping import Int64

from datamodules.clusters import task_labels
from datamodules.target_spec import TargetSpec
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset


class TaskId:
    """The task as a class; a task is (suite, task id)."""

    needs_seen_tasks = True

    def __init__(self) -> None:
        self.labels = np.zeros(0, np.int64)

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Numbers the tasks of the selection in sorted order.

        Raises:
            ValueError: if there is only one task.
        """
        names, codes = task_labels(dataset.metadata.take(rows))
        classes = sorted(names)
        places = np.asarray([classes.index(name) for name in names], np.int64)[codes]
        if len(classes) < 2:
            raise ValueError(
                f"`target` task_id needs at least 2 tasks, but got only {classes[0]!r}. "
                "Select more tasks."
            )
        self.labels = np.full(dataset.index.num_rows, -1, np.int64)
        self.labels[rows] = places
        share = np.bincount(self.labels[training], minlength=len(classes)) / len(training)
        return TargetSpec(
            name="task_id",
            objective="cross_entropy",
            size=len(classes),
            classes=tuple(classes),
            trivial=tuple(share.tolist()),
        )

    def values(self, dataset: ShardDataset, rows: Rows) -> Int64[np.ndarray, " b"]:
        """Class numbers."""
        return self.labels[rows]
