"""What a shard should hold, by whatever can still be read of its manifest, index rows or tar."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jax_bridge.shards.episode_record import DigestedMember, EpisodeRecord, digested_member
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import read_index_file
from jax_bridge.shards.index_rows import MEMBER, RowReader, member_column
from jax_bridge.shards.manifest import Manifest, digest_range, episode_of
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.tar_layout import (
    BLOCK,
    Member,
    Readable,
    group_by_key,
    scan_members,
    tar_header,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """The members that a shard should hold."""

    members: tuple[Member, ...]
    """In the order of the tar."""
    digests: dict[Member, str]
    """What is known of their content."""
    complete: bool
    """Whether these are all members; else only what the tar shows up to its first damage."""

    @property
    def episodes(self) -> dict[EpisodeId, list[Member]]:
        """The members of each episode; keys of another scheme belong to none."""
        found: dict[EpisodeId, list[Member]] = {}
        for member in self.members:
            episode = episode_of(member.key)
            if episode is not None:
                found.setdefault(episode, []).append(member)
        return found


def gather(
    name: str,
    *,
    manifest: pathlib.Path,
    rows: pathlib.Path,
    index: pa.Table | None,
    tar: Readable = b"",
) -> Evidence:
    """Asks the manifest first, then the shard's rows, the whole index, and the tar itself."""
    digested = list(_manifest_members(manifest))
    try:
        members = [m for m, _ in Manifest.from_bytes(manifest.read_bytes(), name).members]
        return Evidence(members=_in_order(members), digests=dict(digested), complete=True)
    except (DamagedShardError, OSError):
        pass
    for table in (_rows(rows, name), index):
        members = [] if table is None else list(_row_members(table, name))
        if members:
            return Evidence(members=_in_order(members), digests=dict(digested), complete=True)
    members, whole = _scanned(tar, name)
    return Evidence(members=_in_order(members), digests=dict(digested), complete=whole)


def whole_episodes(tar: Readable, name: str, evidence: Evidence) -> list[EpisodeRecord]:
    """The episodes of a tar that nothing speaks against."""
    records: list[EpisodeRecord] = []
    for episode, members in evidence.episodes.items():
        # What follows the last sample that could be read may have been of the same episode.
        cut = not evidence.complete and members[-1] == evidence.members[-1]
        record = None if cut else _record(tar, name, episode, members, evidence.digests)
        if record is not None:
            records.append(record)
    return records


def _record(
    tar: Readable,
    name: str,
    episode: EpisodeId,
    members: Sequence[Member],
    digests: dict[Member, str],
) -> EpisodeRecord | None:
    start = position = members[0].offset - BLOCK
    digested: list[DigestedMember] = []
    for member in members:
        if member.offset != position + BLOCK or not _is_framed(tar, member):
            return None
        digest = digest_range(tar, member.offset, member.offset + member.size)
        if digests.get(member, digest) != digest:
            return None
        digested.append(DigestedMember(member, digest))
        position = member.end
    if start < 0 or not _says(tar, name, episode, members):
        return None
    return EpisodeRecord(id=episode, start=start, end=position, members=tuple(digested))


def _is_framed(tar: Readable, member: Member) -> bool:
    """Whether header and padding are those that the writer makes."""
    try:
        header = tar_header(member.name, member.size)
    except ValueError:
        return False
    padding = tar[member.offset + member.size : member.end]
    return (
        member.end <= len(tar)
        and tar[member.offset - BLOCK : member.offset] == header
        and not any(padding)
    )


def _says(tar: Readable, name: str, episode: EpisodeId, members: Sequence[Member]) -> bool:
    """Whether the samples' own words can be read and name the episode."""
    reader = RowReader(name)
    try:
        rows = [reader.row(tar, group) for group in group_by_key(members)]
    except DamagedShardError:
        return False
    keys = {row["key"] for row in rows}
    named = {(row.get("suite"), row.get("task_id"), row.get("episode")) for row in rows}
    return len(keys) == len(rows) and named == {tuple(episode)}


def _manifest_members(path: pathlib.Path) -> Iterator[DigestedMember]:
    """The lines of a manifest that can be read; each member stands on its own."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for line in lines:
        try:
            yield digested_member(json.loads(line.removesuffix(b",")))
        except (ValueError, TypeError, RecursionError):
            continue


def _rows(path: pathlib.Path, name: str) -> pa.Table | None:
    try:
        return read_index_file(path, name)[0]
    except (DamagedShardError, OSError):
        return None


def _row_members(table: pa.Table, name: str) -> Iterator[Member]:
    suffixes = [
        column.removeprefix(MEMBER).removesuffix(".offset")
        for column in table.column_names
        if column.startswith(MEMBER) and column.endswith(".offset")
    ]
    if not {"key", "shard", *(member_column(s, "bytes") for s in suffixes)} <= {
        *table.column_names
    }:
        return
    for row in table.filter(pc.field("shard") == name).to_pylist():
        for suffix in suffixes:
            offset, size = row[f"{MEMBER}{suffix}.offset"], row[member_column(suffix, "bytes")]
            if offset is not None:
                yield Member(row["key"], suffix, offset, size)


def _scanned(tar: Readable, name: str) -> tuple[list[Member], bool]:
    members: list[Member] = []
    try:
        members.extend(scan_members(tar, name))
    except DamagedShardError:
        return members, False
    return members, True


def _in_order(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.offset))
