"""How a recorded episode moves, from its actions alone.

Letters: t steps; a action; m numbers of the movement.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64

ABSOLUTE = ("aloha",)
"""Layouts whose actions are places (joint angles), of which differences are the movement."""
ARM_ACTION = 6
"""An arm's action has at least so many numbers and begins with x, y, z; a vehicle's with x, y."""
AXES = "xyz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Movement:
    """Length, bending and direction of a path, in the units of the actions."""

    path_length: float
    """Sum of the lengths of all steps."""
    curvature: float
    """Mean angle between a step and the next one, in radians; 0 is straight, pi is back."""
    direction: str
    """The axis along which the episode gets farthest: `+x`, `-j4` (a joint), or `still`."""


def movement_of(actions: Float[np.ndarray, "t a"], layout: str) -> Movement:
    """The movement of an episode."""
    absolute = layout in ABSOLUTE
    if absolute:
        steps = np.diff(actions.astype(np.float64), axis=0)
    else:
        steps = actions[:, : 3 if actions.shape[1] >= ARM_ACTION else 2].astype(np.float64)
    lengths = np.linalg.norm(steps, axis=1)
    return Movement(
        path_length=float(lengths.sum()),
        curvature=_mean_angle(steps[lengths > 0], lengths[lengths > 0]),
        direction=_direction(steps.sum(axis=0), absolute),
    )


def _mean_angle(steps: Float64[np.ndarray, "t m"], lengths: Float64[np.ndarray, " t"]) -> float:
    if len(steps) < 2:
        return 0.0
    units = steps / lengths[:, None]
    cosine = np.clip((units[1:] * units[:-1]).sum(axis=1), -1.0, 1.0)
    return float(np.arccos(cosine).mean())


def _direction(total: Float64[np.ndarray, " m"], absolute: bool) -> str:
    if not total.size or not np.abs(total).max() > 0:
        return "still"
    axis = int(np.abs(total).argmax())
    sign = "+" if total[axis] > 0 else "-"
    return f"{sign}j{axis}" if absolute or axis >= len(AXES) else f"{sign}{AXES[axis]}"
