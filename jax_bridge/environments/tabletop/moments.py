"""Moments other than a scene's usual start: to be asked about, or to act from."""

import numpy as np

from jax_bridge.environments.tabletop.physics import MAX_OPENING, MAX_YAW, WORKSPACE, World
from jax_bridge.environments.tabletop.scene import WALL

_HELD, _INSIDE = 0.4, 0.15
"""Shares of the moments with something in the hand, and with something in a container."""
_NEAR, _BESIDE = 0.4, 0.08
"""Share of the moments with the hand near a thing, and how far off it is then, at most, in metres.
Whoever acts is there for long; a hand anywhere is there once in fifty moments."""
_LOWEST_START, _HIGHEST = 0.06, 0.24
"""Of the finger tips, in metres."""
_MARGIN = 0.02
"""Least distance of a start from the sides of the workspace, in metres."""


def displace(world: World, random: np.random.Generator) -> None:
    """Puts the hand anywhere over the table, empty, open and upright; things stay where they are.

    Args:
        world: a scene as it was laid out; changed in place.
        random: draws the place.
    """
    (x_low, x_high), (y_low, y_high), _ = WORKSPACE
    low = (x_low + _MARGIN, y_low + _MARGIN, _LOWEST_START)
    high = (x_high - _MARGIN, y_high - _MARGIN, _HIGHEST)
    world.x, world.y, world.z = (float(value) for value in random.uniform(low, high))


def stir(world: World, random: np.random.Generator) -> None:
    """Puts the hand anywhere or near a thing, and at times a thing in it or in a container.

    Args:
        world: a scene as it was laid out; changed in place.
        random: draws all of it.
    """
    (x_low, x_high), (y_low, y_high), (z_low, _) = WORKSPACE
    low, high = (x_low, y_low, z_low, -MAX_YAW / 2), (x_high, y_high, _HIGHEST, MAX_YAW / 2)
    world.x, world.y, world.z, world.yaw = (float(value) for value in random.uniform(low, high))
    if random.random() < _NEAR:
        thing = world.bodies[random.integers(len(world.bodies))]
        aside = random.uniform(-_BESIDE, _BESIDE, 2)
        world.x = float(np.clip(thing.x + aside[0], x_low, x_high))
        world.y = float(np.clip(thing.y + aside[1], y_low, y_high))
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
