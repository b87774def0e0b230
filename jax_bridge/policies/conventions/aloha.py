"""ALOHA: two arms, a camera above and one on each wrist, joint positions.

Source: openpi, `src/openpi/policies/aloha_policy.py` and its configurations `pi0_aloha` and
`pi05_aloha`; the linkage of the gripper: Interbotix. State and action: joints 6 and gripper of the
left arm, then of the right one.
Letters: b any leading axes; h action horizon.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64

from jax_bridge.policies.conventions.convention import Convention, Recipe

_ARM = (1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0)
GRIPPERS = (6, 13)
"""Places of the grippers in state and action."""
OPENING = (0.01844, 0.05800)
"""Metres that ALOHA calls 0 and 1."""
ARM_LENGTH, HORN_RADIUS = 0.036, 0.022
"""Of the linkage between motor and finger, in metres."""
MODEL_ANGLES = (0.5476, 1.6296)
"""Radians of the motor that the weights' training data calls 0 and 1."""
ROBOT_ANGLES = (-0.6213, 1.4910)
"""Radians of the motor that ALOHA's gripper command calls 0 and 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlohaUnits:
    """Joints turn the other way here and there; a gripper is an opening for the robot.

    The weights have learnt the angle of the gripper's motor.
    """

    signs: tuple[float, ...] = (*_ARM, *_ARM)
    """Of each joint; a gripper keeps its own."""

    def state_to_model(self, state: Float[np.ndarray, "14"]) -> Float64[np.ndarray, "14"]:
        """Turned joints, and the motor's angles of the grippers."""
        result = state.astype(np.float64) * np.asarray(self.signs)
        result[list(GRIPPERS)] = _angle_of(result[list(GRIPPERS)])
        return result

    def actions_to_robot(self, actions: Float[np.ndarray, "h 14"]) -> Float64[np.ndarray, "h 14"]:
        """Turned joints, and the grippers' commands."""
        result = actions.astype(np.float64) * np.asarray(self.signs)
        # The weights give radians above the closed gripper's, not numbers between 0 and 1.
        angle = result[:, list(GRIPPERS)] + MODEL_ANGLES[0]
        low, high = ROBOT_ANGLES
        result[:, list(GRIPPERS)] = (angle - low) / (high - low)
        return result


def _angle_of(opening: Float64[np.ndarray, "*b"]) -> Float64[np.ndarray, "*b"]:
    """The motor's angle at an opening, both from 0 to 1."""
    low, high = OPENING
    reach = opening * (high - low) + low
    sine = (HORN_RADIUS**2 + reach**2 - ARM_LENGTH**2) / (2 * HORN_RADIUS * reach)
    low, high = MODEL_ANGLES
    return (np.arcsin(np.clip(sine, -1.0, 1.0)) - low) / (high - low)


_DELTA = (*(True,) * 6, False, *(True,) * 6, False)
ALOHA = Convention(
    name="aloha",
    image_keys={
        "images/cam_high": "base",
        "images/cam_left_wrist": "left_wrist",
        "images/cam_right_wrist": "right_wrist",
    },
    optional_images=("images/cam_left_wrist", "images/cam_right_wrist"),
    state_keys={"state": 14},
    action_dim=14,
    asset_id="trossen",
    units=AlohaUnits(),
    pi0=Recipe(normalisation="z_score", delta_mask=_DELTA, action_horizon=50),
    pi05=Recipe(
        normalisation="quantile", delta_mask=_DELTA, state_in_prompt=True, action_horizon=50
    ),
)
"""Joints are relative to the state, grippers are not."""
