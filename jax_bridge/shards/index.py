"""The index: one Parquet row a sample, in an order that does not depend on how shards were cut."""

import errno
import json
import pathlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.dataset_info import FORMAT, VERSION
from jax_bridge.shards.episode_record import exact
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_file import UNREADABLE, FileColumns, unreadable
from jax_bridge.shards.index_rows import COLUMNS, MEMBER, TENSOR, rows_from_tar, rows_table
from jax_bridge.shards.index_table import IndexTable
from jax_bridge.shards.manifest import manifest_from_tar
from jax_bridge.shards.parquet_digest import digested_parquet

ORDER = ("suite", "task_id", "episode", "timestep", "key")
_META = b"vla-lens"
AT_ONCE_VALUES = 2**23
"""An index of up to so many rows times columns is read at once: some 100,000 samples."""


def index_bytes(table: pa.Table, shards: Sequence[str]) -> bytes:
    """A Parquet file that also says which shards it covers."""
    note = {"format": FORMAT, "version": VERSION, "shards": sorted(shards)}
    return digested_parquet(table.replace_schema_metadata({_META: canonical_json(note).encode()}))


def read_index_file(content_path: object, shard: str) -> tuple[pa.Table, list[str]]:
    """Reads a Parquet file of the index and the names of the shards that it covers.

    Raises:
        DamagedShardError: if it cannot be read.
    """
    try:
        table = pq.read_table(str(content_path), page_checksum_verification=True)
        covered = _covered(table.schema.metadata or {})
        _require_columns(table.schema)
        if table.column("key").null_count or table.column("shard").null_count:
            raise ValueError("a row has no key or no shard")
        return table.replace_schema_metadata(None), covered
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise unreadable(content_path, shard, error) from error


def open_index_file(path: pathlib.Path, shard: str) -> tuple[IndexTable, list[str]]:
    """Opens an index and reads the names of the shards that it covers.

    A small one is read and checked at once. Of a large one the footer is read, and each column
    is read and checked when it is asked for.

    Raises:
        FileNotFoundError: if there is none.
        DamagedShardError: if it cannot be read.
    """
    columns = FileColumns(path, shard)
    if columns.starts[-1] * len(columns.schema) <= AT_ONCE_VALUES:
        table, covered = read_index_file(path, shard)
        return IndexTable.of(table), covered
    try:
        _require_columns(columns.schema)
        return IndexTable(columns), _covered(columns.note)
    except UNREADABLE as error:
        raise unreadable(path, shard, error) from error


def _covered(note: Mapping[bytes, bytes]) -> list[str]:
    return [exact(name, str) for name in json.loads(note.get(_META, b"{}"))["shards"]]


def _require_columns(schema: pa.Schema) -> None:
    kinds = dict(zip(schema.names, schema.types, strict=True))
    if len(kinds) != len(schema):
        raise ValueError("a column stands twice")
    for name, kind in {**dict.fromkeys(kinds), **COLUMNS}.items():
        kind = pa.int64() if name.startswith((MEMBER, TENSOR)) else kind
        if kind is not None and kinds.get(name) != kind:
            raise ValueError(f"column {name} must be {kind}, but is {kinds.get(name)}")


def concatenate(parts: Sequence[pa.Table]) -> pa.Table:
    """All rows, by suite, task, episode and timestep.

    Raises:
        ValueError: if a column is a number in one shard and a text in another, or a key stands
            in two shards.
    """
    if not parts:
        return rows_table([], "")
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"The shards' columns do not fit together: {error}.") from error
    names = [n for n in table.column_names if not n.startswith((MEMBER, TENSOR))]
    places = sorted(n for n in table.column_names if n.startswith((MEMBER, TENSOR)))
    table = table.select([*names, *places]).sort_by([(name, "ascending") for name in ORDER])
    _require_unique_keys(table)
    return table.combine_chunks()


def _require_unique_keys(table: pa.Table) -> None:
    keys = table.column("key")
    if len(keys.unique()) == len(keys):
        return
    counts = keys.value_counts().to_pylist()
    double = next(entry["values"] for entry in counts if entry["counts"] > 1)
    shards = [
        row["shard"] for row in table.select(["key", "shard"]).to_pylist() if row["key"] == double
    ]
    raise DamagedShardError(
        f"the sample stands in {len(shards)} shards: {', '.join(shards)}. Remove all but one.",
        shard=shards[0],
        key=double,
    )


def complete_shards(folder: DatasetFolder, *, rebuild: bool = False) -> list[str]:
    """Gives every tar its manifest and its index rows; call it under the folder's lock.

    Args:
        folder: the data set.
        rebuild: make the rows anew even where they are.

    Returns:
        Names of the shards, sorted.
    """
    manifests, rows = set(folder.names(".json")), set(folder.names(".parquet"))
    names = folder.names()
    for name in names:
        if name not in manifests:
            write_manifest(folder, name)
        if rebuild or name not in rows:
            write_rows(folder, name)
    return names


def write_manifest(folder: DatasetFolder, name: str) -> None:
    """Writes one shard's manifest from its tar, once the tar is known to be one of samples."""
    with mapped(folder.tar(name)) as tar:
        content = manifest_from_tar(tar, name).to_bytes()
        rows_from_tar(tar, name)
    folder.files.write_whole(folder.manifest(name), content)


def write_rows(folder: DatasetFolder, name: str) -> None:
    """Writes one shard's rows from its tar."""
    with mapped(folder.tar(name)) as tar:
        table = rows_from_tar(tar, name)
    folder.files.write_whole(folder.rows(name), index_bytes(table, [name]))


def write_index(folder: DatasetFolder) -> pa.Table:
    """Concatenates the rows of all whole shards; call it under the folder's lock."""
    names = folder.whole_names(".parquet")
    table = concatenate([read_index_file(folder.rows(n), n)[0] for n in names])
    folder.files.write_whole(folder.index_path, index_bytes(table, names))
    return table


def index_dataset(folder: DatasetFolder, *, rebuild: bool = True) -> pa.Table:
    """Builds the index from the tars (`vla-lens shards index`).

    Raises:
        FileNotFoundError: if the folder is no data set.
        DamagedShardError: where a tar is damaged.
    """
    folder.read_info()
    folder.create()
    with folder.lock():
        complete_shards(folder, rebuild=rebuild)
        return write_index(folder)


def current_index(folder: DatasetFolder) -> IndexTable:
    """The index, made or brought up to date first where that is needed.

    Where the folder cannot be written, the index is built in memory.
    """
    names = folder.names()
    try:
        index, covered = open_index_file(folder.index_path, "index")
        if covered == names:
            return index
    except (FileNotFoundError, DamagedShardError):
        pass
    try:
        return IndexTable.of(index_dataset(folder, rebuild=False))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
    return IndexTable.of(concatenate([_rows_anyhow(folder, name) for name in names]))


def _rows_anyhow(folder: DatasetFolder, name: str) -> pa.Table:
    if folder.rows(name).exists():
        return read_index_file(folder.rows(name), name)[0]
    with mapped(folder.tar(name)) as tar:
        return rows_from_tar(tar, name)
