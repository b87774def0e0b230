"""How the robot looks: fingers, hand and an arm of two rods.

The wrist camera is fixed to the hand, so its view of the hand depends on nothing but the opening.
"""

import math

import numpy as np

from jax_bridge.environments.tabletop.camera import Camera
from jax_bridge.environments.tabletop.canvas import Part
from jax_bridge.environments.tabletop.shapes import cast_ball, cast_block, cast_rod

Pose = tuple[float, float, float, float]
"""x, y, z of the point between the finger tips, and yaw."""

_SHOULDER = np.array([-0.52, 0.0, 0.32])
_ROD = 0.42
"""Length of the upper arm and of the forearm, in metres."""
_PALM_HEIGHT = 0.093
"""Of the palm's middle above the finger tips, in metres."""
_WRIST = 0.09
"""Of the first joint above the palm, in metres."""
_FINGER_HALF = (0.011, 0.006, 0.042)
_PALM_HALF = (0.02, 0.058, 0.018)


def hand_parts(pose: Pose, opening: float) -> list[Part]:
    """The two fingers and the palm that holds them."""
    x, y, z, yaw = pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    away = opening + _FINGER_HALF[1]
    return [
        _block((x - sin * away, y + cos * away, z + 0.033), _FINGER_HALF, yaw, "finger"),
        _block((x + sin * away, y - cos * away, z + 0.033), _FINGER_HALF, yaw, "finger"),
        _block((x, y, z + _PALM_HEIGHT), _PALM_HALF, yaw, "hand"),
    ]


def arm_parts(pose: Pose) -> list[Part]:
    """The arm from the palm back to the shoulder."""
    palm = np.array([pose[0], pose[1], pose[2] + _PALM_HEIGHT])
    wrist = palm + np.array([0, 0, _WRIST])
    elbow = _elbow(wrist)
    return [
        _rod(palm, wrist, 0.026),
        _rod(wrist, elbow, 0.030),
        _rod(elbow, _SHOULDER, 0.036),
        _joint(wrist, 0.036),
        _joint(elbow, 0.044),
    ]


def place_wrist_camera(camera: Camera, pose: Pose) -> None:
    """Puts the camera in front of the palm, looking down past the fingers."""
    x, y, z, yaw = pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    camera.place(
        position=(x + 0.07 * cos, y + 0.07 * sin, z + 0.12),
        forward=(-0.12 * cos, -0.12 * sin, -1.0),
        up=(-cos, -sin, 0.0),
    )


def _block(
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    yaw: float,
    colour: str,
) -> Part:
    reach = math.hypot(half[0], half[1])
    return Part(
        centre, (reach, reach, half[2]), colour, lambda rays: cast_block(rays, centre, half, yaw)
    )


def _rod(start: np.ndarray, end: np.ndarray, radius: float) -> Part:
    half = np.abs(start - end) / 2 + radius
    return Part((start + end) / 2, half, "arm", lambda rays: cast_rod(rays, start, end, radius))


def _joint(centre: np.ndarray, radius: float) -> Part:
    return Part(centre, (radius,) * 3, "hand", lambda rays: cast_ball(rays, centre, radius))


def _elbow(wrist: np.ndarray) -> np.ndarray:
    """Where the elbow is, above the line from shoulder to wrist."""
    span = wrist - _SHOULDER
    length = math.hypot(*span)
    rise = math.sqrt(max(_ROD**2 - (length / 2) ** 2, 0.0))
    level = math.hypot(span[0], span[1])
    up = np.array([-span[0] * span[2], -span[1] * span[2], level * level]) / (level * length)
    return _SHOULDER + span / 2 + rise * up
