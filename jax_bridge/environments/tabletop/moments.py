"""Moments other than a scene's usual start: to be asked about, or to act from."""

import numpy as np

from jax_bridge.environments.tabletop.physics import MAX_OPENING, MAX_YAW, WORKSPACE, Body, World
from jax_bridge.environments.tabletop.scene import WALL

_HELD, _INSIDE = 0.6, 0.1
"""Shares of the moments with something in the hand, and with something in a container."""
_NEAR, _BESIDE = 0.6, 0.08
"""Share of the moments with the hand near a thing (with something in the hand: near a container),
and how far off it is then, at most, in metres. Whoever acts is there for long; a hand anywhere is
there once in fifty moments."""
_LOWEST_START, _HIGHEST = 0.03, 0.24
"""Of the finger tips, in metres."""
_NEAR_START = 0.4
"""Share of the starts near a thing."""
_SHUT = 0.3
"""Share of the starts whose fingers are shut, as after a grasp that missed."""
_MARGIN = 0.02
"""Least distance of a start from the sides of the workspace, in metres."""


def displace(world: World, random: np.random.Generator) -> None:
    """Puts the hand anywhere, or near a thing, empty and upright; things stay where they are.

    Args:
        world: a scene as it was laid out; changed in place.
        random: draws the place, and whether the fingers are open or shut.
    """
    (x_low, x_high), (y_low, y_high), _ = WORKSPACE
    low = (x_low + _MARGIN, y_low + _MARGIN, _LOWEST_START)
    high = (x_high - _MARGIN, y_high - _MARGIN, _HIGHEST)
    world.x, world.y, world.z = (float(value) for value in random.uniform(low, high))
    if random.random() < _NEAR_START:
        _go_near(world, world.objects[random.integers(len(world.objects))], random)
    world.opening = 0.0 if random.random() < _SHUT else MAX_OPENING


def stir(world: World, random: np.random.Generator) -> None:
    """Puts the hand anywhere or near a thing, and at times a thing in it or in a container.

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
    if random.random() < _NEAR:
        things = world.containers if drawn < _HELD else world.bodies
        _go_near(world, things[random.integers(len(things))], random)
    world.opening = MAX_OPENING if random.integers(2) else body.item.radius
    if drawn < _HELD:
        world.held, world.opening = body, body.item.radius
        body.x, body.y, body.yaw = world.x, world.y, world.yaw
        body.z = max(world.z - body.item.height / 2, 0.0)
    elif drawn < _HELD + _INSIDE:
        body.x, body.y, body.z = container.x, container.y, WALL


def _go_near(world: World, thing: Body, random: np.random.Generator) -> None:
    """Moves the hand to the side of a thing, or above it; its height stays."""
    ahead, aside = random.uniform(-_BESIDE, _BESIDE, 2)
    (x_low, x_high), (y_low, y_high), _ = WORKSPACE
    world.x = float(np.clip(thing.x + ahead, x_low, x_high))
    world.y = float(np.clip(thing.y + aside, y_low, y_high))
