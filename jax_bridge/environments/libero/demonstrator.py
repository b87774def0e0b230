"""Picks an object up and drops it into its container, from the simulator's ground truth."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Float64

from jax_bridge.environments.libero.simulator import Simulator

STEP = 0.05
"""How far the controller is told to move by an action of 1, in metres."""
GAIN = 2.5
"""Share of the remaining way that is asked for at once; the arm lags behind what it is told."""
OPEN, CLOSED = -1.0, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """One straight movement with the gripper held open or closed."""

    name: str
    gripper: float
    tolerance: float = 0.01
    """How near, in metres and every direction, the leg's end counts as reached."""
    least: int = 0
    """Steps that the leg takes at least (fingers need time to close)."""
    most: int = 60
    """Steps after which the leg ends wherever the arm is."""


LEGS: tuple[Leg, ...] = (
    Leg(name="hover", gripper=OPEN, tolerance=0.02),
    Leg(name="descend", gripper=OPEN, tolerance=0.008, most=40),
    Leg(name="grasp", gripper=CLOSED, tolerance=math.inf, least=12, most=12),
    Leg(name="lift", gripper=CLOSED, tolerance=0.02, most=40),
    Leg(name="carry", gripper=CLOSED, tolerance=0.02),
    Leg(name="lower", gripper=CLOSED, tolerance=0.02, most=25),
    Leg(name="release", gripper=OPEN, tolerance=math.inf, least=20, most=20),
    Leg(name="retreat", gripper=OPEN, tolerance=0.0, most=10**9),
)

_HOLDING = frozenset({"lift", "carry", "lower"})
"""Legs during which a dropped object is noticed and fetched again."""


class PickAndPlace:
    """Solves `in(object, container)`, one leg after the other; begins anew if it drops it."""

    def __init__(self, simulator: Simulator) -> None:
        _, self._object, region = simulator.goal[0]
        self._container = simulator.container(region)
        self._simulator = simulator
        self._begin()

    @property
    def leg(self) -> Leg:
        """The movement that is being made."""
        return LEGS[self._number]

    def act(self) -> Float32[np.ndarray, "7"]:
        """The next action: movement, no rotation, gripper."""
        if self._lost():
            self._begin()
        elif self._finished():
            self._number, self._steps = self._number + 1, 0
        self._steps += 1
        action = np.zeros(7, np.float32)
        action[:3] = np.clip(GAIN * self._remaining() / STEP, -1.0, 1.0)
        action[6] = self.leg.gripper
        return action

    def _begin(self) -> None:
        """Looks where the object lies now and starts with the first leg."""
        self._number, self._steps = 0, 0
        low, high = self._simulator.box(self._object)
        self._grasp = _grasp_point(low, high)
        self._bottom_to_grasp = self._grasp[2] - low[2]

    def _finished(self) -> bool:
        near = np.abs(self._remaining()).max() < self.leg.tolerance
        return self._steps >= (self.leg.least if near else self.leg.most)

    def _lost(self) -> bool:
        """Whether the object is not between the fingers although it should be."""
        if self.leg.name == "retreat":
            return self._steps > 20 and not self._simulator.predicate(self._simulator.goal[0])
        if self.leg.name not in _HOLDING or (self.leg.name == "lift" and self._steps < 15):
            return False
        low, high = self._simulator.box(self._object)
        gripper = self._simulator.gripper_position()
        outside = np.maximum(np.maximum(low - gripper, gripper - high), 0.0)
        return bool(outside.max() > 0.02)

    def _remaining(self) -> Float64[np.ndarray, "3"]:
        return self._end() - self._simulator.gripper_position()

    def _end(self) -> Float64[np.ndarray, "3"]:
        """Where the present leg leads to."""
        gripper = self._simulator.gripper_position()
        low, high = self._simulator.box(self._container)
        clear = high[2] + self._bottom_to_grasp + 0.05
        match self.leg.name:
            case "hover":
                return np.array([*self._grasp[:2], max(self._grasp[2] + 0.1, 0.18)])
            case "descend":
                return self._grasp
            case "lift":
                return np.array([*self._grasp[:2], clear])
            case "carry":
                return np.array([*self._above(low, high), clear])
            case "lower":
                return np.array([*self._above(low, high), clear - 0.1])
            case "retreat":
                return np.array([*gripper[:2], clear])
            case _:
                return gripper

    def _above(self, low: np.ndarray, high: np.ndarray) -> Float64[np.ndarray, "2"]:
        """Where the gripper must be for what it holds to hang over the container's middle."""
        box = self._simulator.box(self._object)
        held = (box[0] + box[1])[:2] / 2 - self._simulator.gripper_position()[:2]
        return (low + high)[:2] / 2 - np.clip(held, -0.05, 0.05)


def _grasp_point(low: np.ndarray, high: np.ndarray) -> Float64[np.ndarray, "3"]:
    """Over the middle; fingertips 35 mm below a tall object's top, halfway down a flat one."""
    middle = (low + high) / 2
    height = high[2] - low[2]
    middle[2] = max(low[2] + 0.008, min(middle[2], high[2] - 0.035) if height > 0.05 else middle[2])
    return middle
