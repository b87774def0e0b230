"""What is known of one finished episode: its members, where they lie, their digests."""

import dataclasses
from typing import Any, NamedTuple

from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.tar_layout import Member


class DigestedMember(NamedTuple):
    """A member and the sha256 of its content."""

    member: Member
    sha256: str


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
            id=EpisodeId(line["suite"], line["task_id"], line["episode"]),
            start=line["start"],
            end=line["end"],
            members=tuple(DigestedMember(Member(*m[:4]), m[4]) for m in line["members"]),
        )
