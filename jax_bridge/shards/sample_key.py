"""Names of samples, episodes and shards."""

import re
from collections.abc import Sequence
from typing import NamedTuple

SUITE_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,48}")
SAMPLE_KEY = re.compile(r"(.+)-t(\d+)-e(\d+)-s(\d+)")
"""What `sample_key` makes: suite, task, episode, timestep."""
SHARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
MEMBER_WORD = re.compile(r"[A-Za-z0-9_]{1,24}")


class EpisodeId(NamedTuple):
    """Which episode; sorts in the order of the index."""

    suite: str
    task_id: int
    episode: int

    def __str__(self) -> str:
        return f"{self.suite}-t{self.task_id:03d}-e{self.episode:04d}"


def sample_key(suite: str, task_id: int, episode: int, timestep: int) -> str:
    """`{suite}-t{task:03d}-e{episode:04d}-s{timestep:04d}`, free of dots.

    Raises:
        ValueError: if the suite has letters that a key cannot have, or a number is negative.
    """
    if not SUITE_PATTERN.fullmatch(suite):
        raise ValueError(
            f"`suite` must be 1 to 48 letters, digits, underscores or hyphens, but got {suite!r}."
        )
    for word, number in (("task_id", task_id), ("episode", episode), ("timestep", timestep)):
        if not 0 <= number < 10**9:
            raise ValueError(f"`{word}` must lie in [0, 10^9), but got {number}.")
    return f"{EpisodeId(suite, task_id, episode)}-s{timestep:04d}"


def shard_name(episodes: Sequence[EpisodeId]) -> str:
    """A shard's name from its first and last episode, without suffix."""
    first, last = min(episodes), max(episodes)
    if first[:2] == last[:2]:
        return f"{first}-{last.episode:04d}"
    if first.suite == last.suite:
        return f"{first}-t{last.task_id:03d}-e{last.episode:04d}"
    return f"{first}-{last}"
