"""Frames out of episode shards: the camera images of rollouts."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from datamodules.frames.frame_source import FrameEpisode, Frames
from jax_bridge.shards import EpisodeId, ShardDataset, open_dataset
from jax_bridge.shards.index_rows import MEMBER

COLUMNS = (
    "suite", "task_id", "episode", "timestep", "task_name", "instruction", "success", "seed",
    "episode_length",
)  # fmt: skip
IMAGE_KINDS = ("jpg", "png")


class ShardFrames:
    """The frames of a data set that was collected with images.

    Args:
        path: folder or address of the data set.
        instruction: for episodes without one.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if it holds no camera images.
    """

    def __init__(self, path: str, instruction: str | None = None) -> None:
        self._words = instruction or ""
        self._dataset: ShardDataset = open_dataset(path)
        self._members = self._camera_members()
        self.skipped: dict[str, str] = {}
        self.episodes, self._rows = self._read_episodes()

    def _camera_members(self) -> dict[str, str]:
        """The member of each camera: `base` is in `base.jpg`."""
        members = {}
        for name in self._dataset.index.column_names:
            camera, _, kind = name.removeprefix(MEMBER).removesuffix(".offset").partition(".")
            if name.startswith(MEMBER) and kind in IMAGE_KINDS:
                members[camera] = f"{camera}.{kind}"
        if not members:
            raise ValueError(
                f"`path` must hold camera images, but {self._dataset.path} has none. Collect it "
                "with `--images jpg`."
            )
        return members

    def _read_episodes(self) -> tuple[list[FrameEpisode], list[np.ndarray]]:
        table = self._dataset.index.select(list(COLUMNS)).to_table().to_pydict()
        groups: dict[EpisodeId, list[int]] = {}
        for row, key in enumerate(
            zip(table["suite"], table["task_id"], table["episode"], strict=True)
        ):
            groups.setdefault(EpisodeId(*key), []).append(row)
        episodes, rows = [], []
        for place, (identity, group) in enumerate(groups.items()):
            first = group[0]
            episodes.append(
                FrameEpisode(
                    id=identity, place=place, name=str(identity),
                    instruction=table["instruction"][first] or self._words,
                    timesteps=tuple(table["timestep"][row] for row in group),
                    task_name=table["task_name"][first], success=table["success"][first],
                    seed=table["seed"][first], episode_length=table["episode_length"][first],
                )
            )  # fmt: skip
            rows.append(np.asarray(group, np.int64))
        return episodes, rows

    def describe(self) -> dict[str, Any]:
        """How the rollouts were made."""
        return {"kind": "shards", "fingerprint": self._dataset.fingerprint}

    def frames(self, episode: FrameEpisode, frames: Sequence[int], camera: str) -> Frames:
        """Decodes some frames of an episode.

        Raises:
            ValueError: if there is no such camera.
            DamagedShardError: if an image cannot be read.
        """
        if camera not in self._members:
            raise ValueError(
                f"`camera` must be one of {', '.join(self._members)}, but got {camera!r}."
            )
        rows = self._rows[episode.place][list(frames)]
        contents = self._dataset.read_members(self._members[camera], rows)
        return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]
