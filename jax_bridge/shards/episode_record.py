"""What is known of one finished episode: its members, where they lie, their digests."""

import dataclasses
from typing import Any, NamedTuple, TypeVar

from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.tar_layout import Member


class DigestedMember(NamedTuple):
    """A member and the sha256 of its content."""

    member: Member
    sha256: str


T = TypeVar("T", str, int)


def exact(value: object, kind: type[T]) -> T:
    """A value out of JSON that must be a text, or a number of the file system.

    Raises:
        TypeError: if it is of another kind.
        ValueError: if a number is negative or beyond 64 bits, or a text cannot be written again.
    """
    if type(value) is not kind:
        raise TypeError(f"{str(value)[:80]!r} is no {kind.__name__}")
    if isinstance(value, str) and not value.isascii():
        value.encode()  # raises, as a ValueError, for half of a letter
    if isinstance(value, int) and not 0 <= value < 2**62:
        raise ValueError(f"{value} is beyond every file")
    return value


def digested_member(entry: object) -> DigestedMember:
    """Reads `[key, suffix, offset, size, sha256]`.

    Raises:
        TypeError: if it is something else.
        ValueError: if it has another length, or a number is beyond every file.
    """
    if not isinstance(entry, list):
        raise TypeError(f"{str(entry)[:80]!r} is no list")
    key, suffix, offset, size, sha256 = entry
    member = Member(exact(key, str), exact(suffix, str), exact(offset, int), exact(size, int))
    return DigestedMember(member, exact(sha256, str))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One episode inside a tar."""

    id: EpisodeId
    start: int
    """Offset of its first header."""
    end: int
    """Offset behind its last padding."""
    members: tuple[DigestedMember, ...]

    def moved(self, start: int) -> "EpisodeRecord":
        """The same episode at another place."""
        shift = start - self.start
        members = tuple(
            DigestedMember(m._replace(offset=m.offset + shift), digest)
            for m, digest in self.members
        )
        return EpisodeRecord(id=self.id, start=start, end=self.end + shift, members=members)

    def to_json(self) -> dict[str, Any]:
        """One line of the journal."""
        return {
            "suite": self.id.suite,
            "task_id": self.id.task_id,
            "episode": self.id.episode,
            "start": self.start,
            "end": self.end,
            "members": [[*member, digest] for member, digest in self.members],
        }

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "EpisodeRecord":
        """Reads a line of the journal."""
        return cls(
            id=EpisodeId(
                exact(line["suite"], str), exact(line["task_id"], int), exact(line["episode"], int)
            ),
            start=exact(line["start"], int),
            end=exact(line["end"], int),
            members=tuple(map(digested_member, line["members"])),
        )
