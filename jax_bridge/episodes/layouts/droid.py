"""DROID-like files: `action/*` and `observation/robot_state/*`, one file an episode.

DROID's raw `trajectory.h5` has its pictures in videos beside it; its policy-learning conversion
(`trajectory_im128.h5`) has them in `observation/camera/image`. State and action are openpi's:
seven joints and the gripper, joint velocities and the gripper.

Source: droid_policy_learning, robomimic/scripts/conversion/convert_droid.py; openpi,
src/openpi/policies/droid_policy.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py

from jax_bridge.episodes.episode_info import Camera, EpisodeInfo
from jax_bridge.episodes.hdf5_values import (
    attributes_of,
    cameras_in,
    columns_of,
    dataset_at,
    instruction_of,
)
from jax_bridge.episodes.layout import LayoutError

ACTIONS = ("action/joint_velocity", "action/gripper_position")
STATES = (
    ("observation/robot_state/joint_positions", "observation/robot_state/gripper_position"),
    ("observation/joint_position", "observation/gripper_position"),
)
RAW = "observation/image"
"""As the cameras' own library gives them, blue first."""
IMAGES = ("observation/camera/image", RAW, "observation/images")
MOST_BYTES = 1 << 20
"""Of the metadata file that is read."""


class Droid:
    """A Franka arm with two cameras beside it and one at its wrist."""

    name = "droid"

    def recognises(self, file: h5py.File) -> bool:
        """Whether there are groups `action` and `observation`."""
        return all(isinstance(file.get(name), h5py.Group) for name in ("action", "observation"))

    def places(self, file: h5py.File) -> Iterator[str]:
        """The file is one episode."""
        yield ""

    def describe(self, file: h5py.File, path: str, place: str) -> EpisodeInfo:
        """The episode.

        Raises:
            LayoutError: if it has no actions.
        """
        actions = columns_of(file, ACTIONS)
        if not actions:
            raise LayoutError(f"it has no {' and '.join(ACTIONS)}")
        said = _metadata_beside(path)
        return EpisodeInfo(
            path=path, place=place, layout=self.name,
            length=len(dataset_at(file, ACTIONS[0])),
            actions=actions,
            state=next((found for s in STATES if (found := columns_of(file, s))), ()),
            cameras=_cameras(file),
            instruction=instruction_of(file) or said.get("current_task"),
            success=_success(file, path),
            attributes=attributes_of(file),
        )  # fmt: skip


def _cameras(file: h5py.File) -> tuple[Camera, ...]:
    """The first camera beside the robot is `base`, the one at the hand `left_wrist`."""
    for place in IMAGES:
        group = file.get(place)
        if not isinstance(group, h5py.Group):
            continue
        words = sorted((str(name) for name in group), key=lambda word: ("right" in word, word))
        hands = [word for word in words if "hand" in word or "wrist" in word]
        others = [word for word in words if word not in hands]
        names = dict.fromkeys(others[:1], "base") | dict.fromkeys(hands[:1], "left_wrist")
        colour = "bgr" if place == RAW else "rgb"
        return cameras_in(group, f"{place}/", names, colour=colour)
    return ()


def _metadata_beside(path: str) -> dict[str, str]:
    """Texts of DROID's `metadata_*.json` in the same folder."""
    for file in sorted(Path(path).parent.glob("metadata_*.json")):
        try:
            content = json.loads(file.read_bytes()) if file.stat().st_size < MOST_BYTES else {}
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if isinstance(value, str)}
    return {}


def _success(file: h5py.File, path: str) -> bool | None:
    """DROID says it in an attribute, and by the folder that the episode lies in."""
    if "success" in file.attrs:
        return bool(file.attrs["success"])
    parts = Path(path).parts
    return True if "success" in parts else False if "failure" in parts else None
