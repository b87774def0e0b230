"""The robot's state as policies read it.

Letters: s robot state (8).
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Float64


def robot_state(readings: Mapping[str, np.ndarray]) -> Float32[np.ndarray, " s"]:
    """Position of the end effector (metres), its rotation (axis-angle), two finger joints.

    Args:
        readings: robosuite's observation.

    Source: openpi, examples/libero/main.py.
    """
    parts = (
        readings["robot0_eef_pos"],
        axis_angle(readings["robot0_eef_quat"]),
        readings["robot0_gripper_qpos"],
    )
    return np.concatenate(parts).astype(np.float32)


def axis_angle(quaternion: Float[np.ndarray, "4"]) -> Float64[np.ndarray, "3"]:
    """Rotation axis times angle (radians, 0 to 2 pi) of a quaternion x, y, z, w.

    The sign of the quaternion is kept as it is, so that angles beyond pi occur: that is what
    policies were trained on.

    Source: robosuite, utils/transform_utils.py `quat2axisangle`, as openpi uses it.
    """
    w = min(1.0, max(-1.0, float(quaternion[3])))
    sine = math.sqrt(1.0 - w * w)
    if sine == 0.0:
        return np.zeros(3)
    return np.asarray(quaternion[:3], np.float64) * (2.0 * math.acos(w) / sine)
