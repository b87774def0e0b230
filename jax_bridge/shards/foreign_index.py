"""The index of somebody else's WebDataset: one pass over the headers and the small members.

Their tars may hold long names (pax, GNU), folders, and any keys and members; what a sample has is
taken as it is.
"""

import mmap
import pathlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jax_bridge.shards.bounded_json import load_json
from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_folder import mapped
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_rows import (
    MEMBER,
    TENSOR,
    RowReader,
    member_column,
    metadata_columns,
)
from jax_bridge.shards.tar_layout import Member, group_by_key

OWN = ("key", "shard")
"""Columns that every foreign index has; the others are what the `.json` members hold."""


def foreign_table(tars: Sequence[pathlib.Path]) -> pa.Table:
    """One row a sample of these tars, in their order.

    Raises:
        DamagedShardError: if a tar is none, or is cut, or a safetensors header lies.
    """
    parts = [_tar_table(tar, str(number)) for number, tar in enumerate(tars)]
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, found in kinds.items() if len(found - {pa.null()}) > 1}
    try:
        fitting = [_as_text(part, mixed) for part in parts]
        return pa.concat_tables(fitting, promote_options="default").combine_chunks()
    except pa.ArrowException as error:
        raise ValueError(f"The tars' columns do not fit together: {error}.") from error


def foreign_members(tar: pathlib.Path) -> Iterator[Member]:
    """The files of a tar that are members of samples; others (folders, links) are left out.

    Raises:
        DamagedShardError: if it is no tar, or is cut.
    """
    size = tar.stat().st_size
    try:
        with tarfile.open(tar, "r:") as archive:
            for entry in archive:
                folder, slash, name = entry.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                # Only a whole file is one run of bytes.
                if not entry.isreg() or entry.sparse is not None or not stem or not suffix:
                    continue
                if entry.offset_data + entry.size > size:
                    raise tarfile.ReadError(f"{entry.name} needs more bytes than there are")
                key = f"{folder}{slash}{stem}"
                yield Member(key, suffix, entry.offset_data, entry.size)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DamagedShardError(f"it is no whole tar ({error}).", shard=str(tar)) from error


def _tar_table(path: pathlib.Path, shard: str) -> pa.Table:
    reader = RowReader(str(path))
    with mapped(path) as tar:
        rows = [_row(reader, tar, group, shard) for group in group_by_key(foreign_members(path))]
    names = sorted({name for row in rows for name in row} - {*OWN}, key=_rank)
    return pa.table({name: _array([row.get(name) for row in rows]) for name in (*OWN, *names)})


def _row(reader: RowReader, tar: mmap.mmap, group: Sequence[Member], shard: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for member in group:
        if member.suffix == "json":
            row |= _metadata(tar[member.offset : member.offset + member.size], len(tar))
        elif member.suffix.endswith("safetensors"):
            row |= reader.tensors(tar, member)
        # A member that stands twice: the last one counts, as tar has it.
        row[member_column(member.suffix, "offset")] = member.offset
        row[member_column(member.suffix, "bytes")] = member.size
    return {**row, "key": group[0].key, "shard": shard}


def _metadata(content: bytes, file_bytes: int) -> Mapping[str, Any]:
    """The columns of a `.json`; what is no object, or cannot be read, gives none."""
    try:
        entry = load_json(content, file_bytes=file_bytes)
        return metadata_columns(entry) if isinstance(entry, dict) else {}
    except ValueError:
        return {}


def _rank(name: str) -> tuple[bool, str]:
    return name.startswith((MEMBER, TENSOR)), name


def _array(values: list[Any]) -> pa.Array:
    """Values of one kind as they are, of several kinds as JSON text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([None if value is None else canonical_json(value) for value in values])


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in names and table.schema.field(name).type != pa.string():
            values = table.column(name).to_pylist()
            text = pa.array([None if v is None else canonical_json(v) for v in values], pa.string())
            table = table.set_column(place, name, text)
    return table
