"""Moments that no rollout need reach: pictures to be asked about, not to act in."""

import numpy as np

from jax_bridge.environments.tabletop.physics import MAX_OPENING, MAX_YAW, WORKSPACE, World
from jax_bridge.environments.tabletop.scene import WALL

_HELD, _INSIDE = 0.3, 0.15
"""Shares of the moments with something in the hand, and with something in a container."""
_HIGHEST = 0.24
"""Of the finger tips, in metres."""


def stir(world: World, random: np.random.Generator) -> None:
    """Puts the hand anywhere, and at times a thing in it or in a container.

    Args:
        world: a scene as it was laid out; changed in place.
        random: draws all of it.
    """
    (x_low, x_high), (y_low, y_high), (z_low, _) = WORKSPACE
    low, high = (x_low, y_low, z_low, -MAX_YAW / 2), (x_high, y_high, _HIGHEST, MAX_YAW / 2)
    world.x, world.y, world.z, world.yaw = (float(value) for value in random.uniform(low, high))
    body = world.objects[random.integers(len(world.objects))]
    container = world.containers[random.integers(len(world.containers))]
    drawn = random.random()
    world.opening = MAX_OPENING if random.integers(2) else body.item.radius
    if drawn < _HELD:
        world.held, world.opening = body, body.item.radius
        body.x, body.y, body.yaw = world.x, world.y, world.yaw
        body.z = max(world.z - body.item.height / 2, 0.0)
    elif drawn < _HELD + _INSIDE:
        body.x, body.y, body.z = container.x, container.y, WALL
