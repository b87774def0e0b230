"""Where frames come from: episodes of camera images with an instruction each."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jax_bridge.shards import EpisodeId

Frames = Sequence[UInt8[np.ndarray, "_h _w 3"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameEpisode:
    """One episode, before any image of it is decoded."""

    id: EpisodeId
    instruction: str
    timesteps: tuple[int, ...] | range
    """Of the frames that there are, rising."""
    place: int
    """What the source finds the episode by."""
    name: str
    """What a person finds it by: the path of its file or folder, or its key."""
    task_name: str | None = None
    success: bool | None = None
    seed: int | None = None
    episode_length: int | None = None
    """In environment steps; None where only its frames are known."""


@runtime_checkable
class FrameSource(Protocol):
    """Gives frames; travels to worker processes, so it must be picklable."""

    @property
    def episodes(self) -> Sequence[FrameEpisode]:
        """All episodes, in an order that does not depend on the machine."""
        ...

    @property
    def skipped(self) -> dict[str, str]:
        """What could not be read, by name, and why."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, in plain types, for `dataset.json`."""
        ...

    def frames(self, episode: FrameEpisode, frames: Sequence[int], camera: str) -> Frames:
        """Decodes some frames of an episode, by their place in `timesteps`.

        Raises:
            ValueError: if there is no such camera, or an image cannot be decoded.
        """
        ...
