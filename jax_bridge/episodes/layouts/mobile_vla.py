"""Mobile-VLA recordings: one file an episode, `actions` and one camera, no state.

The first version stores `images` (blue first) and says things in attributes; the fifth has
`observations/images` and `language_instruction`. Both exist with a JPEG a step, too.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import h5py

from jax_bridge.episodes.episode_info import Camera, EpisodeInfo
from jax_bridge.episodes.hdf5_values import (
    attributes_of,
    camera_of,
    cameras_in,
    column_of,
    dataset_at,
    instruction_of,
)
from jax_bridge.episodes.layout import LayoutError

ACTIONS = ("actions", "action")
IMAGES = ("images", "observations/images")


class MobileVla:
    """A driving robot: speeds along x and y and about the vertical."""

    name = "mobile_vla"
    cameras: ClassVar[Mapping[str, str]] = {"front": "base", "base": "base", "image": "base"}

    def recognises(self, file: h5py.File) -> bool:
        """Whether there are actions and pictures at one of their places."""
        has_actions = any(isinstance(file.get(name), h5py.Dataset) for name in ACTIONS)
        return has_actions and any(name in file for name in IMAGES)

    def places(self, file: h5py.File) -> Iterator[str]:
        """The file is one episode."""
        yield ""

    def describe(self, file: h5py.File, path: str, place: str) -> EpisodeInfo:
        """The episode.

        Raises:
            LayoutError: if it has no actions.
        """
        name = next(name for name in ACTIONS if name in file)
        actions = column_of(file, name)
        if actions is None:
            raise LayoutError(f"its `{name}` is not [steps, numbers]")
        return EpisodeInfo(
            path=path, place=place, layout=self.name,
            length=len(dataset_at(file, name)),
            actions=(actions,), cameras=self._cameras(file),
            instruction=instruction_of(file), attributes=attributes_of(file),
        )  # fmt: skip

    def _cameras(self, file: h5py.File) -> tuple[Camera, ...]:
        for place in IMAGES:
            entry = file.get(place)
            if isinstance(entry, h5py.Group):
                return cameras_in(entry, f"{place}/", self.cameras)
            colour = "bgr" if place == "images" else "rgb"
            camera = camera_of(entry, name="base", place=place, colour=colour)
            if camera is not None:
                return (camera,)
        return ()
