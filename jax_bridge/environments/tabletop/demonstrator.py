"""A scripted arm that puts the right object into the right container, from ground truth."""

import math

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.tabletop.physics import (
    MAX_OPENING,
    MOVE_PER_STEP,
    TURN_PER_STEP,
    Body,
    World,
)
from jax_bridge.environments.tabletop.tasks import Goal

_OPEN, _CLOSE = -1.0, 1.0
_CARRY_HEIGHT = 0.12
"""Height of the finger tips at which everything is passed over, in metres."""
_OVER = 0.014
"""Horizontal distance at which the hand counts as above an object, in metres."""
_OVER_CONTAINER = 0.022
_AT_HEIGHT = 0.014


class TabletopDemonstrator:
    """Looks at the world anew at every step, so it picks up again what it missed or dropped."""

    def __init__(self, world: World, goal: Goal) -> None:
        self._world = world
        self._target = world.find(goal.target)
        self._container = world.find(goal.container)
        self._closing = False

    def act(self) -> Float32[np.ndarray, "7"]:
        """The next action."""
        world = self._world
        if world.held is self._target:
            return self._deliver()
        if world.held is not None:
            return self._command(None, _CARRY_HEIGHT, _OPEN)
        if world.contains(self._container, self._target):
            return self._command(None, 2 * _CARRY_HEIGHT, _OPEN)
        return self._fetch()

    def _deliver(self) -> Float32[np.ndarray, "7"]:
        """Lifts, carries over the container, lowers and lets go."""
        world, held, container = self._world, self._target, self._container
        hang = world.z - held.z
        carry = max(_CARRY_HEIGHT, container.item.height + 0.03 + hang)
        place = (container.x - held.x + world.x, container.y - held.y + world.y)
        if held.distance(container.x, container.y) > _OVER_CONTAINER:
            lifted = world.z > carry - 0.02
            return self._command(place if lifted else None, carry, _CLOSE)
        low = container.item.height / 2 + 0.015 + hang
        return self._command(place, low, _OPEN if world.z < low + _AT_HEIGHT else _CLOSE)

    def _fetch(self) -> Float32[np.ndarray, "7"]:
        """Goes above the object, down, and closes the fingers."""
        world, target = self._world, self._target
        place, height = (target.x, target.y), target.centre[2]
        over = target.distance(world.x, world.y) < _OVER
        if over and abs(world.z - height) < _AT_HEIGHT:
            self._closing = world.opening > 0 and (self._closing or world.opening == MAX_OPENING)
            return self._command(place, height, _CLOSE if self._closing else _OPEN)
        self._closing = False
        near = target.distance(world.x, world.y) < 2.5 * _OVER
        above = over or (near and world.z < _CARRY_HEIGHT)
        return self._command(place, height if above else max(_CARRY_HEIGHT, world.z), _OPEN)

    def _command(
        self, place: tuple[float, float] | None, height: float, grip: float
    ) -> Float32[np.ndarray, "7"]:
        """Moves towards a place (None: stays above the present one) and a height."""
        world = self._world
        action = np.zeros(7, dtype=np.float32)
        if place is not None:
            action[0] = (place[0] - world.x) / MOVE_PER_STEP
            action[1] = (place[1] - world.y) / MOVE_PER_STEP
        action[2] = (height - world.z) / MOVE_PER_STEP
        if world.held is None:
            action[5] = _quarter_turn(self._target, world.yaw) / TURN_PER_STEP
        action[6] = grip
        return np.clip(action, -1, 1)


def _quarter_turn(body: Body, yaw: float) -> float:
    """Smallest turn after which the fingers are parallel to a side; balls have no side."""
    if body.item.shape != "cube":
        return -yaw
    quarter = math.pi / 2
    return (body.yaw - yaw + quarter / 2) % quarter - quarter / 2
