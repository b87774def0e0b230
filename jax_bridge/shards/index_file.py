"""Columns of an index in a Parquet file, read and checked when they are asked for."""

import pathlib
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jaxtyping import Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_table import OWN_TEXTS, kept_column, total_of
from jax_bridge.shards.parquet_digest import KEY

UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RecursionError)
"""What pyarrow raises at bytes that are no index."""


def unreadable(path: object, shard: str, error: Exception) -> DamagedShardError:
    """What to say of an index that cannot be read."""
    return DamagedShardError(
        f"{path} cannot be read ({error}). Run `vla-lens shards index` to rebuild it.",
        shard=shard,
    )


class FileColumns:
    """Columns of a Parquet file; the file stays open, so that it may be replaced meanwhile.

    Args:
        path: the file.
        shard: what it is the index of, for messages.
        stamp: what the file must be the same as, when it is opened again elsewhere.

    Raises:
        FileNotFoundError: if there is no file.
        DamagedShardError: if its footer cannot be read.
        ValueError: if it is another file by now.
    """

    def __init__(self, path: pathlib.Path, shard: str, stamp: object = None) -> None:
        self._path, self._shard = path, shard
        self._lock = threading.Lock()
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._groups: dict[tuple[str, int], pa.ChunkedArray] = {}
        try:
            self._source = pa.OSFile(str(path), "rb")
            footer = pq.read_metadata(self._source)
            self.note: dict[bytes, bytes] = footer.metadata or {}
            self.schema: pa.Schema = footer.schema.to_arrow_schema().remove_metadata()
            self._texts = [
                field.name
                for field in self.schema
                if field.type == pa.string() and field.name not in OWN_TEXTS
            ]
            self._file = pq.ParquetFile(
                self._source,
                metadata=footer,
                read_dictionary=self._texts,
                page_checksum_verification=True,
            )
            sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        except FileNotFoundError:
            raise
        except UNREADABLE as error:
            raise unreadable(path, shard, error) from error
        self.starts: Int64[np.ndarray, " groups+1"] = np.cumsum([0, *sizes], dtype=np.int64)
        self._stamp = self.note.get(KEY) or self._source.size()
        if stamp is not None and stamp != self._stamp:
            raise ValueError(
                f"`path` must not change while it is read, but {path} was written anew. Open the "
                "data set again."
            )

    def __reduce__(self) -> tuple[type["FileColumns"], tuple[pathlib.Path, str, object]]:
        return (FileColumns, (self._path, self._shard, self._stamp))

    def column(self, name: str) -> pa.ChunkedArray:
        """Reads a column once; texts as dictionaries."""
        with self._lock:
            if name not in self._columns:
                self._columns[name] = self._read(name, None)
            return self._columns[name]

    def group(self, name: str, number: int) -> pa.ChunkedArray:
        """Reads a column's rows of one group once."""
        with self._lock:
            if name in self._columns:
                size = int(self.starts[number + 1] - self.starts[number])
                return self._columns[name].slice(int(self.starts[number]), size)
            if (name, number) in self._groups:
                return self._groups[name, number]
            found = self._read(name, number)
            if name not in OWN_TEXTS:
                self._groups[name, number] = found
            return found

    def total(self, name: str, number: int) -> tuple[int, int]:
        """By what the footer says of the group, where its values are all the same."""
        footer, place = self._file.metadata, self.schema.get_field_index(name)
        noted = footer.row_group(number).column(place).statistics
        size = int(self.starts[number + 1] - self.starts[number])
        if noted is not None and noted.has_null_count:
            there = size - noted.null_count
            if not there or (noted.has_min_max and noted.min == noted.max):
                return there, there * noted.min if there else 0
        with self._lock:
            return total_of(self._read(name, number))

    def _read(self, name: str, group: int | None) -> pa.ChunkedArray:
        try:
            if group is None:
                table = self._file.read(columns=[name])
            else:
                table = self._file.read_row_group(group, columns=[name])
            column = table.column(name)
        except UNREADABLE as error:
            raise unreadable(self._path, self._shard, error) from error
        size = self.starts[-1] if group is None else self.starts[group + 1] - self.starts[group]
        if len(column) != size or (name in ("key", "shard") and column.null_count):
            reason = ValueError(f"column {name} does not have a value in each of {size} rows")
            raise unreadable(self._path, self._shard, reason)
        return column

    def mask(self, where: pc.Expression) -> pa.ChunkedArray:
        """Reads the columns that the condition names, and no other.

        Raises:
            DamagedShardError: if they cannot be read.
            pyarrow.ArrowException: if the condition makes no sense here.
        """
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        kind = ds.ParquetFileFormat(
            dictionary_columns=self._texts, default_fragment_scan_options=options
        )
        try:
            with self._lock:
                return kept_column(kind.make_fragment(self._source), where)
        except OSError as error:
            raise unreadable(self._path, self._shard, error) from error
