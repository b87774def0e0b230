"""`IndexTable`: the index, of which a column is read when it is asked for.

An index of ten million samples has some seventy columns; a question needs three or four of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from jaxtyping import Bool, Int32, Int64

NO_VALUE = -1
"""Stands in arrays where the index has null."""
OWN_TEXTS = ("key", "truth", "other")
"""Texts that hardly any two samples share: to number them would save nothing."""
Rows = Int64[np.ndarray, " _"]


@runtime_checkable
class Columns(Protocol):
    """Where columns come from: a table in memory, or a Parquet file."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types; texts are `string`, however they are held."""
        ...

    @property
    def starts(self) -> Int64[np.ndarray, " groups+1"]:
        """The first row of each group of rows, and the number of all rows."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column; texts may be dictionaries."""
        ...

    def group(self, name: str, number: int) -> pa.ChunkedArray:
        """A column's rows of one group."""
        ...

    def total(self, name: str, number: int) -> tuple[int, int]:
        """How many values a column of numbers has in one group, and their sum."""
        ...

    def mask(self, where: pc.Expression) -> pa.ChunkedArray:
        """Whether each row fulfils a condition; only the columns that it names are read."""
        ...


class TableColumns:
    """Columns of a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema = table.schema
        self.starts = np.array([0, table.num_rows], np.int64)

    def column(self, name: str) -> pa.ChunkedArray:
        """The table's own."""
        return self._table.column(name)

    def group(self, name: str, number: int) -> pa.ChunkedArray:
        """The whole column: there is one group."""
        assert number == 0
        return self._table.column(name)

    def total(self, name: str, number: int) -> tuple[int, int]:
        """Of the whole column: there is one group."""
        return total_of(self.group(name, number))

    def mask(self, where: pc.Expression) -> pa.ChunkedArray:
        """Asks all rows."""
        return kept_column(ds.dataset(self._table), where)


def total_of(column: pa.ChunkedArray) -> tuple[int, int]:
    """How many values a column of numbers has, and their sum."""
    total = pc.call_function("sum", [column]).as_py() or 0
    return len(column) - column.null_count, total


def kept_column(rows: ds.Dataset | ds.Fragment, where: pc.Expression) -> pa.ChunkedArray:
    """What a condition says of each row.

    Raises:
        pyarrow.ArrowException: if the condition makes no sense here.
    """
    return rows.scanner(columns={"kept": where}).to_table().column("kept")


class RowGroups(NamedTuple):
    """Rows that share their values."""

    names: list[tuple[Any, ...]]
    """The values of each group, by first appearance."""
    of_row: Int64[np.ndarray, " n"]
    """Each row's group."""


class IndexTable:
    """Rows and columns of an index; like a `pyarrow.Table`, but nothing is read before its time.

    `select`, `drop` and `take` give other views of the same index; `to_table` reads all of one.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        names: Sequence[str] | None = None,
        rows: Rows | None = None,
    ) -> None:
        self._columns = columns
        self._rows = rows
        self._numbers: dict[tuple[str, int], np.ndarray] = {}
        self.column_names: list[str] = list(columns.schema.names if names is None else names)

    @classmethod
    def of(cls, table: pa.Table) -> "IndexTable":
        """The index that is a table in memory."""
        return cls(TableColumns(table))

    @property
    def schema(self) -> pa.Schema:
        """Names and types."""
        return pa.schema([self._columns.schema.field(name) for name in self.column_names])

    @property
    def num_rows(self) -> int:
        """Samples."""
        return int(self._columns.starts[-1]) if self._rows is None else len(self._rows)

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.column(name)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, read now.

        Raises:
            KeyError: if there is none of this name.
            DamagedShardError: if it cannot be read.
        """
        kind = self._type(name)
        if self._rows is not None:
            return pa.chunked_array([self._some(name, self._rows)], kind)
        return _plain(self._columns.column(name), kind)

    def _type(self, name: str) -> pa.DataType:
        if name not in self.column_names:
            raise KeyError(name)
        return self._columns.schema.field(name).type

    def codes(self, name: str) -> tuple[list[Any], Int32[np.ndarray, " n"]]:
        """A column as its different values, and each row's place among them; -1 is null."""
        self._type(name)
        column = self._columns.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        column = column.unify_dictionaries()
        if not column.num_chunks:
            return [], np.zeros(0, np.int32)
        parts = [chunk.indices.fill_null(NO_VALUE).to_numpy() for chunk in column.chunks]
        numbers = np.concatenate(parts).astype(np.int32, copy=False)
        values = column.chunk(0).dictionary.to_pylist()
        return values, numbers if self._rows is None else numbers[self._rows]

    def integers(self, name: str, rows: Rows) -> Rows:
        """Numbers of some rows, null as -1; reads only the groups that hold these rows."""
        self._type(name)
        if self._rows is not None:
            rows = self._rows[rows]
        found = np.empty(len(rows), np.int64)
        for number, places, inside in self._by_group(rows):
            if (name, number) not in self._numbers:
                group = self._columns.group(name, number)
                whole = group.fill_null(NO_VALUE) if group.null_count else group
                self._numbers[name, number] = whole.to_numpy()
            found[places] = self._numbers[name, number][inside]
        return found

    def groups(self, names: Sequence[str]) -> "RowGroups":
        """The different values of some columns together, and which of them each row has.

        Quick where equal rows stand together, as those of an episode do.
        """
        parts = [self._numbered(name) for name in names]
        changes = np.ones(self.num_rows, np.bool_)
        changes[1:] = False
        for _, numbers in parts:
            changes[1:] |= numbers[1:] != numbers[:-1]
        starts = np.flatnonzero(changes)
        runs = zip(*(_named(values, numbers[starts]) for values, numbers in parts), strict=True)
        places: dict[tuple[Any, ...], int] = {}
        codes = [places.setdefault(run, len(places)) for run in runs]
        lengths = np.diff(np.append(starts, self.num_rows))
        return RowGroups(list(places), np.repeat(np.asarray(codes, np.int64), lengths))

    def _numbered(self, name: str) -> tuple[list[Any] | None, np.ndarray]:
        kind = self._type(name)
        if pa.types.is_integer(kind):
            column = self.column(name)
            if not column.null_count:
                return None, column.to_numpy()
        return self.codes(name)

    def count_and_sum(self, name: str) -> tuple[int, int]:
        """How many values a column of numbers has, and their sum; keeps nothing of it."""
        self._type(name)
        if self._rows is not None:
            return total_of(self.column(name))
        groups = range(len(self._columns.starts) - 1)
        totals = [self._columns.total(name, number) for number in groups]
        return sum(count for count, _ in totals), sum(total for _, total in totals)

    def mask(self, where: pc.Expression) -> Bool[np.ndarray, " n"]:
        """Which rows fulfil a condition; null counts as no.

        Raises:
            pyarrow.ArrowException: if the condition makes no sense here.
            DamagedShardError: if a column cannot be read.
        """
        kept = self._columns.mask(where)
        if kept.type != pa.bool_():
            raise pa.ArrowTypeError(f"it is {kept.type}, not true or false")
        mask = kept.fill_null(False).to_numpy()
        return mask if self._rows is None else mask[self._rows]

    def select(self, names: Sequence[str]) -> "IndexTable":
        """The same rows of these columns.

        Raises:
            KeyError: if there is none of a name.
        """
        for name in names:
            self._type(name)
        return IndexTable(self._columns, names=names, rows=self._rows)

    def drop(self, names: Sequence[str]) -> "IndexTable":
        """The same rows without these columns.

        Raises:
            KeyError: if there is none of a name.
        """
        for name in names:
            self._type(name)
        return self.select([name for name in self.column_names if name not in names])

    def take(self, rows: Sequence[int] | np.ndarray | pa.Array) -> "IndexTable":
        """These rows, in this order, of the same columns.

        Raises:
            IndexError: if there is no such row.
        """
        chosen = np.asarray(rows).astype(np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < self.num_rows):
            raise IndexError(f"`rows` must lie in [0, {self.num_rows}), but got {chosen}.")
        chosen = chosen if self._rows is None else self._rows[chosen]
        return IndexTable(self._columns, names=self.column_names, rows=chosen)

    def to_table(self) -> pa.Table:
        """All columns and rows of this view, read now.

        Raises:
            DamagedShardError: if a column cannot be read.
        """
        columns = [self.column(name) for name in self.column_names]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return self.to_table().to_pylist()

    def group_by(self, names: str | list[str], *, use_threads: bool = True) -> pa.TableGroupBy:
        """As of a table."""
        return self.to_table().group_by(names, use_threads=use_threads)

    def equals(self, other: "IndexTable | pa.Table") -> bool:
        """Whether the other holds the same, wherever it lies."""
        theirs = other.to_table() if isinstance(other, IndexTable) else other
        return self.to_table().equals(theirs)

    def _some(self, name: str, rows: Rows) -> pa.Array:
        kind = self._type(name)
        parts: list[pa.Array] = [pa.array([], kind)]
        order: list[Rows] = [np.zeros(0, np.int64)]
        for number, places, inside in self._by_group(rows):
            part = self._columns.group(name, number).take(pa.array(inside))
            parts += _plain(part, kind).chunks
            order.append(places)
        found, places = pa.concat_arrays(parts), np.concatenate(order)
        if (places[1:] > places[:-1]).all():
            return found
        return found.take(pa.array(np.argsort(places)))

    def _by_group(self, rows: Rows) -> list[tuple[int, Rows, Rows]]:
        """Number of each group that is needed, which of `rows` lie in it, and where."""
        starts = self._columns.starts
        groups = np.searchsorted(starts, rows, side="right") - 1
        order = np.argsort(groups, kind="stable")
        bounds = np.flatnonzero(np.diff(groups[order])) + 1
        parts = np.split(order, bounds) if len(rows) else []
        return [(int(groups[p[0]]), p, rows[p] - starts[groups[p[0]]]) for p in parts]


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def _named(values: list[Any] | None, numbers: np.ndarray) -> list[Any]:
    if values is None:
        return numbers.tolist()
    return [None if number == NO_VALUE else values[number] for number in numbers.tolist()]
