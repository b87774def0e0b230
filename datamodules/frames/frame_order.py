"""Which frames are read, and in which order: whole episodes a rank, equal token lengths a batch.

Padding moves the action token, so a batch holds prompts of one length only. A writer wants the
frames of an episode one after the other. Both hold because an episode has one instruction:
episodes are ordered by the length of their prompts, and a batch ends where the length changes.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from datamodules.frames.frame_source import FrameEpisode
from jax_bridge.shards import EpisodeId


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeFrames:
    """Chosen frames of one episode."""

    episode: FrameEpisode
    frames: Int64[np.ndarray, " f"]
    """Places in `episode.timesteps`, rising."""
    tokens: int
    """Length of its prompt."""


Batch = list[tuple[EpisodeFrames, int]]
"""An episode and which of its chosen frames, for each row."""


def choose_frames(
    episodes: Sequence[FrameEpisode],
    *,
    every: int,
    chosen: Mapping[str, Sequence[int]] | None,
    lengths: Mapping[int, int],
) -> list[EpisodeFrames]:
    """Every n-th frame of all episodes, or the frames of a plan.

    Args:
        episodes: all of them.
        every: distance of frames that are read; not used with a plan.
        chosen: timesteps by episode name; episodes that are not in it are left out.
        lengths: tokens of each episode's prompt, by place.

    Raises:
        ValueError: if the plan asks for a timestep that an episode has not.
    """
    found = []
    for episode in episodes:
        if chosen is None:
            frames = np.arange(0, len(episode.timesteps), every, dtype=np.int64)
        elif episode.name in chosen:
            frames = _places(episode, chosen[episode.name])
        else:
            continue
        if len(frames):
            tokens = lengths[episode.place]
            found.append(EpisodeFrames(episode=episode, frames=frames, tokens=tokens))
    return found


def _places(episode: FrameEpisode, wanted: Sequence[int]) -> Int64[np.ndarray, " f"]:
    where = {timestep: place for place, timestep in enumerate(episode.timesteps)}
    missing = [timestep for timestep in wanted if timestep not in where]
    if missing:
        raise ValueError(
            f"`plan` must name frames that there are, but {episode.name} has no timestep "
            f"{missing[0]}. Make the plan anew from these files."
        )
    return np.asarray(sorted({where[timestep] for timestep in wanted}), np.int64)


def share_of_rank(
    episodes: Sequence[EpisodeFrames], rank: int, world_size: int, done: Collection[EpisodeId]
) -> list[EpisodeFrames]:
    """Whole episodes of this rank that are not done, ordered by token length.

    Which rank reads an episode does not depend on what is done: ranks that look at different
    moments never take the same one.
    """
    ordered = sorted(episodes, key=lambda e: (e.tokens, e.episode.place))
    return [e for e in ordered[rank::world_size] if e.episode.id not in done]


def batches(episodes: Sequence[EpisodeFrames], batch_size: int) -> Iterator[Batch]:
    """Rows in order, cut where a batch is full or the token length changes."""
    batch: Batch = []
    for episode in episodes:
        for number in range(len(episode.frames)):
            if batch and (len(batch) == batch_size or batch[0][0].tokens != episode.tokens):
                yield batch
                batch = []
            batch.append((episode, number))
    if batch:
        yield batch
