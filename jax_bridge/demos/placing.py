"""Recorded episodes with their numbers in a data set."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from jax_bridge.episodes import EpisodeInfo
from jax_bridge.shards.canonical_json import canonical_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedEpisode:
    """An episode with its numbers in the data set."""

    info: EpisodeInfo
    instruction: str
    task_id: int
    number: int

    @property
    def source(self) -> str:
        """File name and place in it, wherever the file lies."""
        return f"{os.path.basename(self.info.path)}:{self.info.place}".rstrip(":")


def place_episodes(episodes: Sequence[EpisodeInfo], instruction: str | None) -> list[PlacedEpisode]:
    """Numbers tasks by instruction and episodes inside a task, in their order.

    Args:
        episodes: of one data set.
        instruction: for episodes that have none.

    Raises:
        ValueError: if one has no instruction and none is given for it.
    """
    words = [info.instruction or instruction for info in episodes]
    for info, said in zip(episodes, words, strict=True):
        if said is None:
            silent = sum(word is None for word in words)
            raise ValueError(
                f"`instruction` must be given where files have none: {silent} of {len(words)} "
                f"episodes, the first is {info.source}. Add --instruction TEXT."
            )
    tasks = {word: number for number, word in enumerate(dict.fromkeys(words))}
    counts: collections.Counter[int] = collections.Counter()
    placed = []
    for info, said in zip(episodes, words, strict=True):
        assert said is not None
        task_id = tasks[said]
        placed.append(
            PlacedEpisode(info=info, instruction=said, task_id=task_id, number=counts[task_id])
        )
        counts[task_id] += 1
    return placed


def episodes_digest(placed: Sequence[PlacedEpisode]) -> str:
    """Of which episodes there are, wherever their files lie."""
    entries: list[list[Any]] = [
        [os.path.basename(p.info.path), p.info.place, p.info.length, p.instruction,
         [dataclasses.astuple(camera) for camera in p.info.cameras]]
        for p in placed
    ]  # fmt: skip
    return hashlib.sha256(canonical_json(entries).encode()).hexdigest()
