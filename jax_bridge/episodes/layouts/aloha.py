"""ALOHA: one file an episode, `observations/qpos`, `observations/images/cam_*` and `action`.

Source: ALOHA, aloha_scripts/record_episodes.py, and openpi,
examples/aloha_real/convert_aloha_data_to_lerobot.py (how compressed frames are decoded).
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import h5py

from jax_bridge.episodes.episode_info import EpisodeInfo
from jax_bridge.episodes.hdf5_values import (
    attributes_of,
    cameras_in,
    column_of,
    dataset_at,
    instruction_of,
)
from jax_bridge.episodes.layout import LayoutError


class Aloha:
    """Two arms: 14 joint positions; raw frames, or JPEGs padded with zeros."""

    name = "aloha"
    cameras: ClassVar[Mapping[str, str]] = {
        "cam_high": "base",
        "top": "base",
        "cam_left_wrist": "left_wrist",
        "left_wrist": "left_wrist",
        "cam_right_wrist": "right_wrist",
        "right_wrist": "right_wrist",
    }

    def recognises(self, file: h5py.File) -> bool:
        """Whether there are `action` and `observations/qpos`."""
        return isinstance(file.get("action"), h5py.Dataset) and "observations/qpos" in file

    def places(self, file: h5py.File) -> Iterator[str]:
        """The file is one episode."""
        yield ""

    def describe(self, file: h5py.File, path: str, place: str) -> EpisodeInfo:
        """The episode.

        Raises:
            LayoutError: if actions or state are no numbers.
        """
        actions, state = column_of(file, "action"), column_of(file, "observations/qpos")
        if actions is None or state is None:
            raise LayoutError("its `action` or `observations/qpos` is not [steps, numbers]")
        images = file.get("observations/images")
        cameras = (
            cameras_in(images, "observations/images/", self.cameras)
            if isinstance(images, h5py.Group)
            else ()
        )
        return EpisodeInfo(
            path=path, place=place, layout=self.name,
            length=len(dataset_at(file, "action")),
            actions=(actions,), state=(state,), cameras=cameras,
            instruction=instruction_of(file), attributes=attributes_of(file),
        )  # fmt: skip
