"""Where rays meet simple shapes, and how light the surface is there.

Every function returns, for each ray of a patch, the depth of the first hit (infinite where there
is none) and the light on it, 0 (dark) to 1 (highlight). Containers assume that they are looked
into from above their rim.

Letters: h, w height and width of a patch, in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.tabletop.camera import Point, Rays

LIGHT = (0.35, -0.45, 0.82)
"""Direction towards the lamp, of unit length."""
_LAMP = np.array(LIGHT, dtype=np.float32)
_AMBIENT, _DIFFUSE, _BACK = 0.42, 0.42, 0.18
"""Light from everywhere, from the lamp, and taken away on the side that faces away."""
_RIM = np.float32(0.92)
"""Light on a container's rim."""

Hits = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]
"""Depth and light."""


def cast_ball(rays: Rays, centre: Point, radius: float) -> Hits:
    """A glossy ball."""
    to = _towards(rays, centre)
    along = rays.dot(to)
    inside = along * along - rays.square * (to @ to - radius * radius)
    t = (along - np.sqrt(inside)) / rays.square
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
    t = (along - np.sqrt(inside)) / square
    on_side = np.abs(t * dz - to[2]) < half_height
    facing = ((t * dx - to[0]) * LIGHT[0] + (t * dy - to[1]) * LIGHT[1]) / radius
    lid = (to[2] + half_height) / dz
    on_lid = (lid * dx - to[0]) ** 2 + (lid * dy - to[1]) ** 2 < radius * radius
    depth = np.where(on_lid, lid, np.where(on_side, t, np.inf))
    return depth, np.where(on_lid, np.float32(_lit_face(LIGHT[2])), _lit(facing))


def cast_block(rays: Rays, centre: Point, half: tuple[float, float, float], yaw: float) -> Hits:
    """A solid box."""
    slabs = _slabs(rays, _towards(rays, centre), yaw)
    depth, light = _enter(slabs, half)
    return np.where(depth < _leave(slabs, half), depth, np.inf), light


def cast_dish(rays: Rays, foot: Point, radius: float, height: float, wall: float) -> Hits:
    """A bowl or a plate: a hollow cap of a sphere that stands on its foot."""
    sphere = (radius * radius + height * height) / (2 * height)
    to = _towards(rays, (foot[0], foot[1], foot[2] + sphere))
    along, square, distance = rays.dot(to), rays.square, float(to @ to)
    rim = (to[2] - sphere + height) / rays.axis(2)
    out = (rim * rays.axis(0) - to[0]) ** 2 + (rim * rays.axis(1) - to[1]) ** 2
    opening, on_rim = out < (radius - wall) ** 2, out < radius * radius
    # Through the opening a ray meets the far side of the inner sphere, else the outer's near one.
    inner, outer = np.float32(distance - (sphere - wall) ** 2), np.float32(distance - sphere**2)
    side = np.where(opening, np.float32(1), np.float32(-1))
    cut = np.where(opening, inner, outer)
    t = (along + side * np.sqrt(along * along - square * cut)) / square
    # Points above the rim belong to the part of the sphere that is cut off.
    depth = np.where(on_rim ^ opening, rim, np.where(opening | (t > rim), t, np.inf))
    facing = side * ((float(to @ _LAMP) - t * rays.dot(_LAMP)) / sphere)
    return depth, np.where(on_rim ^ opening, _RIM, _lit(facing) - 0.05 * side)


def cast_tray(rays: Rays, foot: Point, half: float, height: float, wall: float, yaw: float) -> Hits:
    """A square box without a lid."""
    to = _towards(rays, (foot[0], foot[1], foot[2] + height / 2))
    slabs = _slabs(rays, to, yaw)
    size = (half, half, height / 2)
    depth, light = _enter(slabs, size)
    depth = np.where(depth < _leave(slabs, size), depth, np.inf)
    # Where rays cross the plane of the rim, in the box's own axes.
    up = slabs[2]
    rim = up.inverse * (up.offset + height / 2)
    out = np.maximum(*(np.abs(rim / slab.inverse - slab.offset) for slab in slabs[:2]))
    opening, on_rim = out < half - wall, out < half
    inside = _leave(slabs, (half - wall, half - wall, height / 2 - wall))
    above_floor = inside / up.inverse - (up.offset - height / 2 + wall)
    shaded = 0.52 + np.minimum(above_floor / height, 1) * 0.2
    light = np.where(on_rim, _RIM, light)
    light = np.where(opening, np.where(above_floor < 1e-3, np.float32(0.62), shaded), light)
    return np.where(opening, inside, depth), light


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
    t = (along - np.sqrt(inside)) / square
    place = t * d_axis - to_axis
    hit = (place > 0) & (place < length)
    towards = t * rays.dot(_LAMP) - float(to @ _LAMP)
    facing = (towards - place * float(axis @ _LAMP)) / radius
    return np.where(hit, t, np.inf), _lit(facing)


def _towards(rays: Rays, point: Point) -> Float32[np.ndarray, "3"]:
    return np.asarray(point, dtype=np.float32) - rays.origin


def _lit(facing: Any) -> Any:
    """Light on a surface by the cosine of its angle to the lamp; its back gets little."""
    return _AMBIENT + np.maximum(_DIFFUSE * facing, _BACK * facing)


def _lit_face(facing: float) -> float:
    """The same for a flat face."""
    return _AMBIENT + max(_DIFFUSE * facing, _BACK * facing)


class _Slab(NamedTuple):
    """One of a box's axes."""

    inverse: Float32[np.ndarray, "h w"]
    """One by each ray's speed along the axis."""
    offset: float
    """Distance along the axis from the camera to the middle of the box."""
    light: float
    """On the face that is turned to the camera."""

    def near(self, half: float) -> Float32[np.ndarray, "h w"]:
        """Depth of coming between the two faces, which are `half` from the middle."""
        if abs(self.offset) > half:
            return (self.offset - math.copysign(half, self.offset)) * self.inverse
        return self.offset * self.inverse - half * np.abs(self.inverse)

    def far(self, half: float) -> Float32[np.ndarray, "h w"]:
        """Depth of leaving the space between the two faces."""
        if abs(self.offset) > half:
            return (self.offset + math.copysign(half, self.offset)) * self.inverse
        return self.offset * self.inverse + half * np.abs(self.inverse)


def _slabs(rays: Rays, to: np.ndarray, yaw: float) -> tuple[_Slab, ...]:
    """The three axes of a turned box."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    axes = np.array([(cos, sin, 0), (-sin, cos, 0), (0, 0, 1)], dtype=np.float32)
    rows, columns = axes @ rays.rows.T, axes @ rays.columns.T
    offsets, cosines = (axes @ to).tolist(), (axes @ _LAMP).tolist()
    return tuple(
        _Slab(1 / (row[:, None] + column), offset, _lit_face(cosine if offset < 0 else -cosine))
        for row, column, offset, cosine in zip(rows, columns, offsets, cosines, strict=True)
    )


def _enter(slabs: Sequence[_Slab], half: Sequence[float]) -> Hits:
    """Depth of entering a box and the light on the face of entry."""
    along, across, up = (slab.near(h) for slab, h in zip(slabs, half, strict=True))
    side = np.maximum(along, across)
    light = np.where(along > across, np.float32(slabs[0].light), np.float32(slabs[1].light))
    return np.maximum(side, up), np.where(up >= side, np.float32(slabs[2].light), light)


def _leave(slabs: Sequence[_Slab], half: Sequence[float]) -> Float32[np.ndarray, "h w"]:
    """Depth of leaving a box."""
    along, across, up = (slab.far(h) for slab, h in zip(slabs, half, strict=True))
    return np.minimum(np.minimum(along, across), up)
