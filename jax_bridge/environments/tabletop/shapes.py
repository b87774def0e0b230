"""Where rays meet simple shapes, and how light the surface is there.

Every function returns, for each ray of a patch, the depth of the first hit (infinite where there
is none) and the light on it, 0 (dark) to 1 (highlight). Containers assume that they are looked
into from above their rim.

Letters: h, w height and width of a patch, in pixels.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.tabletop.camera import Point, Rays

LIGHT = (0.35, -0.45, 0.82)
"""Direction towards the lamp, of unit length."""
_LAMP = np.array(LIGHT, dtype=np.float32)
_AMBIENT, _DIFFUSE, _BACK = 0.42, 0.42, 0.18
"""Light from everywhere, from the lamp, and taken away on the side that faces away."""

Hits = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]
"""Depth and light."""


def cast_ball(rays: Rays, centre: Point, radius: float) -> Hits:
    """A glossy ball."""
    to = _towards(rays, centre)
    along = rays.dot(to)
    inside = along * along - rays.square * (to @ to - radius * radius)
    t = (along - np.sqrt(np.maximum(inside, 0))) / rays.square
    facing = (t * rays.dot(_LAMP) - float(to @ _LAMP)) / radius
    gloss = np.maximum(facing, 0) ** 4
    light = _lit(facing) + 0.16 * (gloss * gloss * gloss)
    return np.where(inside > 0, t, np.inf), light


def cast_cylinder(rays: Rays, centre: Point, radius: float, half_height: float) -> Hits:
    """An upright cylinder with a lid."""
    to = _towards(rays, centre)
    dx, dy, dz = rays.axis(0), rays.axis(1), rays.axis(2)
    square = dx * dx + dy * dy
    along = dx * to[0] + dy * to[1]
    inside = along * along - square * (to[0] ** 2 + to[1] ** 2 - radius * radius)
    t = (along - np.sqrt(np.maximum(inside, 0))) / square
    on_side = (inside > 0) & (np.abs(t * dz - to[2]) < half_height)
    facing = ((t * dx - to[0]) * LIGHT[0] + (t * dy - to[1]) * LIGHT[1]) / radius
    lid = (to[2] + half_height) / dz
    on_lid = (lid * dx - to[0]) ** 2 + (lid * dy - to[1]) ** 2 < radius * radius
    depth = np.where(on_lid, lid, np.where(on_side, t, np.inf))
    return depth, np.where(on_lid, _lit(LIGHT[2]), _lit(facing))


def cast_block(rays: Rays, centre: Point, half: tuple[float, float, float], yaw: float) -> Hits:
    """A solid box."""
    near, far, light = _slabs(rays, _towards(rays, centre), half, yaw)
    return np.where(near < far, near, np.inf), light


def cast_dish(rays: Rays, foot: Point, radius: float, height: float, wall: float) -> Hits:
    """A bowl or a plate: a hollow cap of a sphere that stands on its foot."""
    sphere = (radius * radius + height * height) / (2 * height)
    to = _towards(rays, (foot[0], foot[1], foot[2] + sphere))
    along, towards_light = rays.dot(to), rays.dot(_LAMP)
    light_to = float(to @ _LAMP)
    rim = (to[2] - sphere + height) / rays.axis(2)
    out = (rim * rays.axis(0) - to[0]) ** 2 + (rim * rays.axis(1) - to[1]) ** 2
    inner = (to @ to) - (sphere - wall) ** 2
    inside = (along + np.sqrt(np.maximum(along * along - rays.square * inner, 0))) / rays.square
    behind = along * along - rays.square * ((to @ to) - sphere**2)
    outside = (along - np.sqrt(np.maximum(behind, 0))) / rays.square
    # Points above the rim belong to the part of the sphere that is cut off.
    on_wall = (behind > 0) & (outside > rim)
    opening, on_rim = out < (radius - wall) ** 2, out < radius * radius
    depth = np.where(opening, inside, np.where(on_rim, rim, np.where(on_wall, outside, np.inf)))
    facing = (depth * towards_light - light_to) / sphere
    light = np.where(opening, 0.86 * _lit(-facing), np.where(on_rim, 0.92, _lit(facing)))
    return depth, light


def cast_tray(
    rays: Rays,
    foot: Point,
    half: float,
    height: float,
    wall: float,
    yaw: float,
) -> Hits:
    """A square box without a lid."""
    centre = (foot[0], foot[1], foot[2] + height / 2)
    to = _towards(rays, centre)
    near, far, light = _slabs(rays, to, (half, half, height / 2), yaw)
    rim = (to[2] + height / 2) / rays.axis(2)
    cos, sin = math.cos(yaw), math.sin(yaw)
    x, y = rim * rays.axis(0) - to[0], rim * rays.axis(1) - to[1]
    out = np.maximum(np.abs(cos * x + sin * y), np.abs(cos * y - sin * x))
    inner = (half - wall, half - wall, height / 2 - wall)
    _, inside, _ = _slabs(rays, to, inner, yaw)
    opening, on_rim = out < half - wall, out < half
    depth = np.where(opening, inside, np.where(near < far, near, np.inf))
    above_floor = inside * rays.axis(2) - to[2] + height / 2
    shaded = 0.50 + 0.16 * np.minimum(above_floor / height, 1)
    floor = above_floor < wall * 1.01
    light = np.where(opening, np.where(floor, 0.62, shaded), np.where(on_rim, 0.92, light))
    return depth, light


def cast_rod(rays: Rays, start: Point, end: Point, radius: float) -> Hits:
    """A round rod between two points, without ends."""
    to = _towards(rays, start)
    span = np.subtract(end, start)
    length = float(np.linalg.norm(span))
    axis = (span / length).astype(np.float32)
    d_axis, to_axis = rays.dot(axis), float(to @ axis)
    square = rays.square - d_axis * d_axis
    along = rays.dot(to) - d_axis * to_axis
    inside = along * along - square * (float(to @ to) - to_axis**2 - radius * radius)
    t = (along - np.sqrt(np.maximum(inside, 0))) / square
    place = t * d_axis - to_axis
    hit = (inside > 0) & (place > 0) & (place < length)
    towards = t * rays.dot(_LAMP) - float(to @ _LAMP)
    facing = (towards - place * float(axis @ _LAMP)) / radius
    return np.where(hit, t, np.inf), _lit(facing)


def _towards(rays: Rays, point: Point) -> Float32[np.ndarray, "3"]:
    return np.asarray(point, dtype=np.float32) - rays.origin


def _lit(facing: Any) -> Any:
    """Light on a surface by the cosine of its angle to the lamp; its back gets a little."""
    return _AMBIENT + np.maximum(_DIFFUSE * facing, _BACK * facing)


def _slabs(
    rays: Rays, to: np.ndarray, half: tuple[float, float, float], yaw: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth of entering and leaving a turned box, and the light on the face of entry.

    Rays go down, so of the two level faces only the upper one can be seen.
    """
    cos, sin = math.cos(yaw), math.sin(yaw)
    axes = np.array([(cos, sin, 0), (-sin, cos, 0), (0, 0, 1)], dtype=np.float32)
    nears, fars, inverses = [], [], []
    for axis, extent in zip(axes, half, strict=True):
        inverse = 1 / rays.dot(axis)
        middle, width = inverse * float(to @ axis), np.abs(inverse) * extent
        nears.append(middle - width)
        fars.append(middle + width)
        inverses.append(inverse)
    side = np.maximum(nears[0], nears[1])
    lights = [
        np.where(inverse < 0, _lit(cosine), _lit(-cosine))
        for inverse, cosine in zip(inverses, (axes[:2] @ _LAMP).tolist(), strict=False)
    ]
    light = np.where(nears[0] > nears[1], lights[0], lights[1])
    light = np.where(nears[2] >= side, _lit(LIGHT[2]), light)
    return np.maximum(side, nears[2]), np.minimum(np.minimum(fars[0], fars[1]), fars[2]), light
