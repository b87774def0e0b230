"""The journal of a part: one line a finished episode, then the name it is committed under."""

import dataclasses
import json
import pathlib

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.episode_record import EpisodeRecord, exact
from jax_bridge.shards.sample_key import SHARD_NAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class Journal:
    """What a journal says."""

    episodes: tuple[EpisodeRecord, ...]
    commit: str | None
    """Name of the shard, once the writer had chosen it."""
    size: int
    """Bytes of its whole lines."""


def episode_line(record: EpisodeRecord) -> bytes:
    """The line of a finished episode."""
    return canonical_json(record.to_json()).encode() + b"\n"


def commit_line(name: str) -> bytes:
    """The line written before the tar gets its name."""
    return canonical_json({"commit": name}).encode() + b"\n"


def read_journal(path: pathlib.Path) -> Journal:
    """Reads as far as the lines are whole: a crash may have cut the last one."""
    episodes: list[EpisodeRecord] = []
    commit: str | None = None
    size = 0
    content = path.read_bytes() if path.exists() else b""
    for line in content.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
            if "commit" in entry:
                commit = exact(entry["commit"], str)
                if not SHARD_NAME.fullmatch(commit):
                    raise ValueError(f"{commit!r} is no name of a shard")
            else:
                episodes.append(EpisodeRecord.from_json(entry))
        except (ValueError, LookupError, TypeError, RecursionError):
            break
        size += len(line) + 1
    return Journal(episodes=tuple(episodes), commit=commit, size=size)
