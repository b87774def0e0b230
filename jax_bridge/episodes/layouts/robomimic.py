"""robomimic: `data/demo_i` with `actions` and `obs`; also MimicGen's files.

Source: robomimic, docs/datasets/overview.md; its extraction stores frames upright.
"""

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

import h5py
import numpy as np

from jax_bridge.episodes.episode_info import Column, EpisodeInfo, Turn
from jax_bridge.episodes.hdf5_values import (
    attributes_of,
    cameras_in,
    column_of,
    columns_of,
    dataset_at,
    group_at,
    instruction_of,
    json_attribute,
)
from jax_bridge.episodes.layout import LayoutError

QUATERNION = 4


class Robomimic:
    """Position of the hand 3, its turn as axis-angle 3, fingers 2: LIBERO's state."""

    name = "robomimic"
    cameras: ClassVar[Mapping[str, str]] = {
        "agentview_image": "base",
        "robot0_eye_in_hand_image": "left_wrist",
        "hand_camera_image": "left_wrist",
        "robot0_left_eye_in_hand_image": "left_wrist",
        "robot0_right_eye_in_hand_image": "right_wrist",
    }

    def recognises(self, file: h5py.File) -> bool:
        """Whether there is a `data/demo_i/actions`."""
        return any(f"data/{name}/actions" in file for name in self._demos(file)[:1])

    def places(self, file: h5py.File) -> Iterator[str]:
        """The demonstrations by their number."""
        for name in self._demos(file):
            yield f"data/{name}"

    def describe(self, file: h5py.File, path: str, place: str) -> EpisodeInfo:
        """One demonstration.

        Raises:
            LayoutError: if it has no actions.
        """
        demo, data = group_at(file, place), group_at(file, "data")
        actions = column_of(demo, "actions")
        if actions is None:
            raise LayoutError("it has no `actions` of numbers")
        observed = group_at(demo, "obs") if "obs" in demo else None
        turn = self.turn(data)
        return EpisodeInfo(
            path=path, place=place, layout=self.name, length=len(dataset_at(demo, "actions")),
            actions=(actions,),
            state=self.state(observed) if observed else (),
            cameras=cameras_in(observed, "obs/", self.cameras, turn=turn) if observed else (),
            instruction=self.instruction(file, data, demo),
            success=_reached(demo),
            attributes=attributes_of(file, data, demo),
        )  # fmt: skip

    def turn(self, data: h5py.Group) -> Turn:
        """What makes frames upright: robomimic's extraction has done it."""
        return "none"

    def state(self, observed: h5py.Group) -> tuple[Column, ...]:
        """The columns of the robot's state."""
        places = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        found = columns_of(observed, places)
        if not found or found[1].size != QUATERNION:
            return ()
        turned = Column(place="obs/robot0_eef_quat", size=3, form="axis-angle")
        return (_below(found[0]), turned, _below(found[2]))

    def instruction(self, file: h5py.File, data: h5py.Group, demo: h5py.Group) -> str | None:
        """What the demonstration was told."""
        found = instruction_of(demo, data, file)
        if found is None:
            info = json_attribute(data, "problem_info").get("language_instruction")
            words = "".join(info) if isinstance(info, list) else info
            found = words.strip("\"' \n") or None if isinstance(words, str) else None
        return found

    def _demos(self, file: h5py.File) -> list[str]:
        data = file.get("data")
        if not isinstance(data, h5py.Group):
            return []
        numbered = ((re.fullmatch(r"demo_(\d+)", str(name)), str(name)) for name in data)
        return [name for _, name in sorted((int(m[1]), name) for m, name in numbered if m)]


def _below(column: Column) -> Column:
    return Column(place=f"obs/{column.place}", size=column.size)


def _reached(demo: h5py.Group) -> bool | None:
    for name in ("rewards", "dones"):
        entry = demo.get(name)
        if isinstance(entry, h5py.Dataset) and entry.ndim == 1 and entry.size:
            return bool(np.any(np.asarray(entry[:]) > 0))
    return None
