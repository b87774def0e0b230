"""`shards/NAME.json`: what every byte of a tar must be. A pure function of the tar."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_info import FORMAT, VERSION
from jax_bridge.shards.episode_record import DigestedMember, EpisodeRecord, digested_member, exact
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.sample_key import SAMPLE_KEY, EpisodeId
from jax_bridge.shards.tar_layout import Member, Readable, scan_members

CHUNK = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The digests of one shard."""

    name: str
    size: int
    """Size of the tar."""
    framing_sha256: str
    """Of all bytes that belong to no member: headers, padding, end blocks, in file order."""
    members: tuple[DigestedMember, ...]

    @property
    def episodes(self) -> dict[EpisodeId, int]:
        """How many samples each episode has."""
        keys = dict.fromkeys(member.key for member, _ in self.members)
        counts: dict[EpisodeId, int] = {}
        for key in keys:
            episode = episode_of(key)
            if episode is not None:
                counts[episode] = counts.get(episode, 0) + 1
        return counts

    def to_bytes(self) -> bytes:
        """The file's content; one member a line, so that people can read and compare it."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "bytes": self.size,
            "samples": len({member.key for member, _ in self.members}),
            "episodes": [[*episode, count] for episode, count in sorted(self.episodes.items())],
            "framing_sha256": self.framing_sha256,
        }
        lines = [canonical_json([*member, digest]) for member, digest in self.members]
        text = canonical_json(head)[:-1] + ',"members":[\n' + ",\n".join(lines) + "\n]}\n"
        return text.encode()

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Manifest":
        """Reads the file's content.

        Raises:
            DamagedShardError: if it is not a manifest of that shard.
        """
        try:
            entry: dict[str, Any] = json.loads(content)
            manifest = cls(
                name=exact(entry["name"], str),
                size=exact(entry["bytes"], int),
                framing_sha256=exact(entry["framing_sha256"], str),
                members=tuple(map(digested_member, entry["members"])),
            )
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DamagedShardError(
                f"its manifest cannot be read ({error}). Run `vla-lens shards repair`.", shard=name
            ) from error
        if manifest.name != name:
            raise DamagedShardError(
                f"its manifest is that of {manifest.name[:200]}. Run `vla-lens shards repair`.",
                shard=name,
            )
        return manifest


def read_manifest(path: pathlib.Path) -> Manifest:
    """Reads a manifest file.

    Raises:
        DamagedShardError: if there is none, or it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedShardError(
            "it has no manifest. Run `vla-lens shards index` to verify it and write one.",
            shard=path.stem,
        ) from error
    return Manifest.from_bytes(content, path.stem)


def episode_of(key: str) -> EpisodeId | None:
    """The episode that a key names; None for a key of another scheme."""
    match = SAMPLE_KEY.fullmatch(key)
    return EpisodeId(match[1], int(match[2]), int(match[3])) if match else None


def manifest_from_tar(tar: Readable, name: str) -> Manifest:
    """Reads a whole tar and digests it.

    Raises:
        DamagedShardError: where the tar is none.
    """
    members = list(scan_members(tar, name))
    digested = [DigestedMember(m, digest_range(tar, m.offset, m.offset + m.size)) for m in members]
    return Manifest(
        name=name,
        size=len(tar),
        framing_sha256=digest_framing(tar, members),
        members=tuple(digested),
    )


def manifest_from_records(tar: Readable, name: str, records: Sequence[EpisodeRecord]) -> Manifest:
    """The manifest of a tar whose members were digested while they were written."""
    members = tuple(member for record in records for member in record.members)
    return Manifest(
        name=name,
        size=len(tar),
        framing_sha256=digest_framing(tar, [member for member, _ in members]),
        members=members,
    )


def digest_range(tar: Readable, start: int, end: int) -> str:
    """Sha256 of some bytes, a few megabytes at a time."""
    digest = hashlib.sha256()
    for position in range(start, end, CHUNK):
        digest.update(tar[position : min(position + CHUNK, end)])
    return digest.hexdigest()


def digest_framing(tar: Readable, members: Sequence[Member]) -> str:
    """Sha256 of the bytes between the members."""
    digest = hashlib.sha256()
    for start, end in framing_ranges(members, len(tar)):
        digest.update(tar[start:end])
    return digest.hexdigest()


def framing_ranges(members: Sequence[Member], size: int) -> Iterator[tuple[int, int]]:
    """Where the bytes between the members lie."""
    position = 0
    for member in members:
        yield position, member.offset
        position = member.offset + member.size
    yield position, size
