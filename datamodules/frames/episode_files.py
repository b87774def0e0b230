"""Frames out of recorded episodes: HDF5 files of known layouts, and CALVIN's npz."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.frames.frame_source import FrameEpisode, Frames
from jax_bridge.episodes import EpisodeInfo, open_episode, survey
from jax_bridge.shards import EpisodeId


class EpisodeFiles:
    """The frames of episode files; nothing is decoded before it is asked for.

    Args:
        path: a file, a folder of them, or a pattern.
        instruction: for episodes that do not say what the robot was told.
        suite: a name for all of them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no episode can be read, or one has no instruction.
    """

    def __init__(self, path: str, instruction: str | None = None, suite: str = "episodes") -> None:
        found = survey([path])
        self.skipped = {
            f"{s.path}:{s.place}" if s.place else s.path: s.reason for s in found.skipped
        }
        if not found.episodes:
            reasons = "; ".join(str(entry) for entry in found.skipped[:3]) or "nothing was found"
            raise ValueError(f"`path` must hold episodes that can be read, but: {reasons}")
        self._infos: list[EpisodeInfo] = found.episodes
        tasks: dict[str, int] = {}
        self.episodes: list[FrameEpisode] = []
        for place, info in enumerate(self._infos):
            words = info.instruction or instruction
            if words is None:
                raise ValueError(
                    "`instruction` must be given where files do not say what the robot was told, "
                    f"but got None for {info.source}."
                )
            task = tasks.setdefault(words, len(tasks))
            self.episodes.append(
                FrameEpisode(
                    id=EpisodeId(suite, task, place), place=place, name=info.source,
                    instruction=words, timesteps=range(info.length), success=info.success,
                    task_name=None, episode_length=info.length,
                )
            )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Names, lengths and instructions, as a digest: other episodes are another data set."""
        listed = "\n".join(
            f"{Path(info.path).name} {info.place} {info.length} {episode.instruction}"
            for info, episode in zip(self._infos, self.episodes, strict=True)
        )
        return {"kind": "episodes", "files": hashlib.sha256(listed.encode()).hexdigest()}

    def frames(self, episode: FrameEpisode, frames: Sequence[int], camera: str) -> Frames:
        """Decodes some frames of an episode.

        Raises:
            ValueError: if there is no such camera.
            EpisodeReadError: if a frame cannot be read.
        """
        with open_episode(self._infos[episode.place]) as opened:
            return list(opened.frames(camera, list(frames)))
