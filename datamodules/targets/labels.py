"""Targets that are classes: one text a row.

Letters: n rows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from datamodules.target_spec import TargetSpec
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset

ReadLabels = Callable[[ShardDataset, Rows], Sequence[str | None]]
"""The label of each row; None where it is unknown."""
MOST_CLASSES = 1000


class Labels:
    """Classes by their names.

    Args:
        name: of the target.
        read: gives the labels.
        all_trained: whether a class without training rows is an error, not only said.
        needs_seen_tasks: see `Target`.
    """

    robot_tensors = ()

    def __init__(
        self,
        name: str,
        read: ReadLabels,
        *,
        all_trained: bool = False,
        needs_seen_tasks: bool = False,
    ) -> None:
        self.name = name
        self.read = read
        self.all_trained = all_trained
        self.needs_seen_tasks = needs_seen_tasks
        self.names: list[str] = []
        self.numbers = np.zeros(0, np.int64)

    def known(self, dataset: ShardDataset, rows: Rows) -> Bool[np.ndarray, " n"]:
        """Reads the labels of all rows."""
        labels = self.read(dataset, rows)
        self.names = sorted({label for label in labels if label is not None})
        place: dict[str | None, int] = {label: i for i, label in enumerate(self.names)}
        self.numbers = np.full(dataset.index.num_rows, -1, np.int64)
        self.numbers[rows] = [place.get(label, -1) for label in labels]
        return self.numbers[rows] >= 0

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Numbers the classes of the selection in sorted order.

        Raises:
            ValueError: if there is only one class, or very many.
        """
        numbers = np.unique(self.numbers[rows])
        self.names = [self.names[number] for number in numbers]
        self.numbers[rows] = np.searchsorted(numbers, self.numbers[rows])
        if not 2 <= len(self.names) <= MOST_CLASSES:
            raise ValueError(
                f"`target` {self.name} needs at least 2 and at most {MOST_CLASSES} classes, but "
                f"got {self._shown(self.names)}. Select other samples or another target."
            )
        share = np.bincount(self.numbers[training], minlength=len(self.names)) / len(training)
        missing = [name for name, part in zip(self.names, share, strict=True) if part == 0]
        if len(self.names) - len(missing) < 2 or (missing and self.all_trained):
            raise ValueError(
                f"`target` {self.name} needs training samples of at least 2 classes"
                f"{', and of each' if self.all_trained else ''}, but got none of "
                f"{self._shown(missing)}. Select more episodes, or split in another way."
            )
        return TargetSpec(
            name=self.name, objective="cross_entropy", size=len(self.names),
            classes=tuple(self.names), trivial=tuple(share.tolist()),
        )  # fmt: skip

    @staticmethod
    def _shown(names: Sequence[str]) -> str:
        return f"{len(names)}: {', '.join(map(repr, names[:5]))}{', ...' if names[5:] else ''}"

    def values(self, dataset: ShardDataset, rows: Rows) -> Int64[np.ndarray, " n"]:
        """Class numbers."""
        return self.numbers[rows]
