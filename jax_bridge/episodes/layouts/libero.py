"""LIBERO's demonstrations: robomimic's layout with names and pictures of its own.

Source: LIBERO, scripts/create_dataset.py. Frames are stored as the simulator gives them, upside
down; half a turn makes them what openpi's policies and `collect --env libero` see. Each frame is
that after its action: LIBERO stores them so, and so they stay.
"""

from collections.abc import Mapping
from typing import ClassVar

import h5py

from jax_bridge.episodes.episode_info import Column, Turn
from jax_bridge.episodes.hdf5_values import columns_of
from jax_bridge.episodes.layouts.robomimic import Robomimic


class Libero(Robomimic):
    """Position of the hand 3, its turn as axis-angle 3, fingers 2."""

    name = "libero"
    cameras: ClassVar[Mapping[str, str]] = {
        "agentview_rgb": "base",
        "eye_in_hand_rgb": "left_wrist",
    }

    def recognises(self, file: h5py.File) -> bool:
        """Whether a demonstration has LIBERO's names."""
        names = ("obs/agentview_rgb", "obs/ee_states", "obs/ee_pos")
        first = next(self.places(file), None)
        return first is not None and any(f"{first}/{name}" in file for name in names)

    def turn(self, data: h5py.Group) -> Turn:
        """What makes frames those of `collect --env libero`; files say how they were rendered."""
        return "mirror" if data.attrs.get("macros_image_convention") == "opencv" else "rotate"

    def state(self, observed: h5py.Group) -> tuple[Column, ...]:
        """The columns of the robot's state."""
        for places in (("ee_pos", "ee_ori", "gripper_states"), ("ee_states", "gripper_states")):
            found = columns_of(observed, places)
            if found:
                return tuple(Column(place=f"obs/{c.place}", size=c.size) for c in found)
        return ()
