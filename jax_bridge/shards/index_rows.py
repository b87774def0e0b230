"""A shard's index rows, read from the tar: metadata, and where members and tensors lie."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jax_bridge.shards.bounded_json import load_json
from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.safetensors_header import TensorEntry, parse_header
from jax_bridge.shards.sample_key import SAMPLE_KEY
from jax_bridge.shards.tar_layout import Member, Readable, group_by_key, scan_members

COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "shard": pa.string(),
    "suite": pa.string(),
    "task_id": pa.int64(),
    "task_name": pa.string(),
    "instruction": pa.string(),
    "task_instruction": pa.string(),
    "episode": pa.int64(),
    "timestep": pa.int64(),
    "call": pa.int64(),
    "seed": pa.int64(),
    "success": pa.bool_(),
    "success_at_end": pa.bool_(),
    "outcome": pa.string(),
    "episode_length": pa.int64(),
    "truth": pa.string(),
    "other": pa.string(),
}
"""Columns that every index has, in their order; `truth` and `other` are JSON text."""
MEMBER, TENSOR = "member.", "tensor."
"""Prefixes of the columns that say where things lie."""
TABLE_PER_TAR = 2
"""Bytes of a table's numbers for one byte of its tar, at most: samples that all have names of
their own would need their number squared."""


def member_column(suffix: str, what: str) -> str:
    """Column of a member's `offset` or `bytes` in the tar."""
    return f"{MEMBER}{suffix}.{what}"


def tensor_column(suffix: str, name: str, what: str) -> str:
    """Column of a tensor's `offset` or `bytes` in the tar."""
    return f"{TENSOR}{suffix.removesuffix('.safetensors')}.{name}.{what}"


class RowReader:
    """Reads rows; remembers headers, which are the same for nearly all samples."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self._headers: dict[tuple[bytes, int], dict[str, TensorEntry]] = {}

    def row(self, tar: Readable, group: Sequence[Member]) -> dict[str, Any]:
        """One sample's row.

        Raises:
            DamagedShardError: if the sample has no readable `.json`, or a header lies.
        """
        row: dict[str, Any] = {"key": group[0].key, "shard": self._shard}
        suffixes = [member.suffix for member in group]
        if "json" not in suffixes or len(set(suffixes)) != len(suffixes):
            raise DamagedShardError(
                f"the sample must have one .json and no member twice, but has {suffixes}.",
                shard=self._shard,
                key=group[0].key,
                offset=group[0].offset,
            )
        for member in group:
            if member.suffix == "json":
                row |= self._metadata(tar, member)
            elif member.suffix.endswith(".safetensors"):
                row |= self.tensors(tar, member)
            row[member_column(member.suffix, "offset")] = member.offset
            row[member_column(member.suffix, "bytes")] = member.size
        return row

    def _metadata(self, tar: Readable, member: Member) -> dict[str, Any]:
        try:
            content = tar[member.offset : member.offset + member.size]
            entry = load_json(content, file_bytes=len(tar))
            if not isinstance(entry, dict):
                raise ValueError("it is no object")
            _require_own_key(member.key, entry)
            return metadata_columns(entry)
        except ValueError as error:
            raise self._damaged(member, f"the JSON cannot be read ({error}).") from error

    def tensors(self, tar: Readable, member: Member) -> dict[str, int]:
        """Where the tensors of a safetensors member lie.

        Raises:
            DamagedShardError: if its header lies.
        """
        try:
            entries = self._header(tar, member)
        except ValueError as error:
            raise self._damaged(member, str(error)) from error
        columns: dict[str, int] = {}
        for name, entry in entries.items():
            columns[tensor_column(member.suffix, name, "offset")] = member.offset + entry.start
            columns[tensor_column(member.suffix, name, "bytes")] = entry.size
        return columns

    def _header(self, tar: Readable, member: Member) -> dict[str, TensorEntry]:
        length = int.from_bytes(tar[member.offset : member.offset + min(8, member.size)], "little")
        end = member.offset + min(member.size, 8 + length)
        cached = (bytes(tar[member.offset : end]), member.size)
        if cached not in self._headers:
            if len(self._headers) > 64:
                self._headers.clear()
            self._headers[cached] = parse_header(*cached)
        return self._headers[cached]

    def _damaged(self, member: Member, reason: str) -> DamagedShardError:
        return DamagedShardError(
            reason, shard=self._shard, key=member.key, member=member.suffix, offset=member.offset
        )


def rows_from_tar(tar: Readable, shard: str) -> pa.Table:
    """All rows of a tar, in its order; reads headers and `.json` members only.

    Raises:
        DamagedShardError: where the tar is damaged, or a key stands twice.
    """
    reader = RowReader(shard)
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    columns: set[str] = set()
    for group in group_by_key(scan_members(tar, shard)):
        if group[0].key in keys:
            raise DamagedShardError(
                "the key stands twice.", shard=shard, key=group[0].key, offset=group[0].offset
            )
        keys.add(group[0].key)
        rows.append(reader.row(tar, group))
        columns.update(rows[-1])
        if len(columns) * len(rows) * 8 > TABLE_PER_TAR * len(tar):
            raise DamagedShardError(
                f"its {len(rows)} samples have {len(columns)} different columns, more than a "
                "table can hold. Use the same names of members, tensors and metadata.",
                shard=shard,
                key=group[0].key,
            )
    return rows_table(rows, shard)


def rows_table(rows: Sequence[Mapping[str, Any]], shard: str) -> pa.Table:
    """Rows as a table: known columns, the data set's own ones, then places."""
    names = dict.fromkeys(name for row in rows for name in row)
    own = [n for n in names if n not in COLUMNS and not n.startswith((MEMBER, TENSOR))]
    places = sorted(n for n in names if n.startswith((MEMBER, TENSOR)))
    kinds = {**dict.fromkeys(sorted(own)), **COLUMNS, **dict.fromkeys(places, pa.int64())}
    arrays: dict[str, pa.Array] = {}
    for name in (*COLUMNS, *sorted(own), *places):
        try:
            name.encode()
            arrays[name] = pa.array([row.get(name) for row in rows], kinds[name])
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise DamagedShardError(
                f"column {name[:80]!r} cannot be made of its values ({error}).", shard=shard
            ) from error
    return pa.table(arrays)


def _require_own_key(key: str, entry: Mapping[str, Any]) -> None:
    """Refuses the metadata of another sample."""
    numbers = [entry.get(name) for name in ("suite", "task_id", "episode", "timestep")]
    match SAMPLE_KEY.fullmatch(key), numbers:
        case re.Match() as found, [str(), int(), int(), int()]:
            named = [found[1], *map(int, found.groups()[1:])]
            if named != numbers:
                raise ValueError(f"it is that of {numbers}, not of {named}")


def metadata_columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a `.json` says: scalars by name, `truth` and the rest as JSON text."""
    columns: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for name, value in entry.items():
        taken = name in ("key", "shard", "truth", "other") or name.startswith((MEMBER, TENSOR))
        if name == "truth" and value is not None:
            columns[name] = canonical_json(value)
        elif taken or isinstance(value, dict | list):
            other[name] = value
        else:
            columns[name] = value
    if other:
        columns["other"] = canonical_json(other)
    return columns
