"""Targets that are columns of the index, by name: `column:NAME` and `class:NAME`."""

import dataclasses
import difflib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from datamodules.target_spec import TargetSpec
from datamodules.targets.labels import Labels
from datamodules.targets.quantities import Quantities
from datamodules.targets.target import Rows, Target
from jax_bridge.shards import ShardDataset

PLACES = ("member.", "tensor.")
NO_TARGETS = ("key", "shard", "truth", "other")


def column_of(dataset: ShardDataset, name: str, rows: Rows) -> pa.ChunkedArray:
    """A column of the index.

    Raises:
        ValueError: if there is none; offers near names.
    """
    names = [
        known
        for known in dataset.index.column_names
        if not known.startswith(PLACES) and known not in NO_TARGETS
    ]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise ValueError(
            f"`target` must name a column of the index, but got {name!r}. "
            + (f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(names)}.")
        )
    return dataset.index.select([name]).take(rows)[name]


@dataclasses.dataclass(frozen=True)
class ReadTexts:
    """Values of a column as texts; `true` and `false` are written `yes` and `no`."""

    column: str

    def __call__(self, dataset: ShardDataset, rows: Rows) -> list[str | None]:
        """One a row."""
        column = column_of(dataset, self.column, rows)
        words = {True: "yes", False: "no"} if pa.types.is_boolean(column.type) else {}
        values = column.to_pylist()
        return [None if value is None else words.get(value, str(value)) for value in values]


@dataclasses.dataclass(frozen=True)
class ReadColumn:
    """Values of a column of numbers."""

    column: str

    def __call__(
        self, dataset: ShardDataset, rows: Rows
    ) -> tuple[Float64[np.ndarray, "n 1"], tuple[str, ...]]:
        """One a row; NaN where there is none."""
        column = pc.cast(column_of(dataset, self.column, rows), pa.float64())
        return np.asarray(column.fill_null(float("nan")))[:, None], (self.column,)


class IndexColumn:
    """A column by name: texts and truth values as classes, numbers by regression.

    Args:
        name: of the column.
        as_class: whether numbers are names of classes too.
    """

    needs_seen_tasks = False
    robot_tensors = ()

    def __init__(self, name: str, *, as_class: bool = False) -> None:
        self.column, self.as_class = name, as_class
        self.inner: Target | None = None

    def known(self, dataset: ShardDataset, rows: Rows) -> np.ndarray:
        """Decides by the column's type how it is read."""
        column = column_of(dataset, self.column, rows[:0])
        word = f"{'class' if self.as_class else 'column'}:{self.column}"
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        self.inner = (
            Quantities(word, ReadColumn(self.column))
            if numeric and not self.as_class
            else Labels(word, ReadTexts(self.column))
        )
        return self.inner.known(dataset, rows)

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """As classes or numbers are fitted."""
        assert self.inner is not None
        return self.inner.fit(dataset, rows=rows, training=training)

    def values(self, dataset: ShardDataset, rows: Rows) -> np.ndarray:
        """Class numbers or standardised numbers."""
        assert self.inner is not None
        return self.inner.values(dataset, rows)
