"""Pictures of the table from both cameras, by casting rays at small patches.

The table is a precomputed picture with the shadows of all resting things. The outer camera stands
still, so what rests is drawn once and afterwards only the patch in which something moves is
renewed.

Letters: h, w height and width in pixels; x, y texels of the table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8, UInt64

from jax_bridge.environments.tabletop.camera import Camera, Rays, Window
from jax_bridge.environments.tabletop.canvas import Canvas, Part
from jax_bridge.environments.tabletop.palette import bake_shadow, table_picture
from jax_bridge.environments.tabletop.physics import Body, World
from jax_bridge.environments.tabletop.robot import Pose, arm_parts, hand_parts, place_wrist_camera
from jax_bridge.environments.tabletop.scene import WALL
from jax_bridge.environments.tabletop.shapes import (
    LIGHT,
    Hits,
    cast_ball,
    cast_block,
    cast_cylinder,
    cast_dish,
    cast_tray,
)

OUTER_VIEW = 40.0
"""Angle that the outer camera sees, in degrees."""
_HAND_SHADOW = 0.045
_KEPT_HANDS = 64


class _Layer(NamedTuple):
    """A finished drawing to be put on a canvas."""

    window: Window
    colours: UInt64[np.ndarray, "h w"]
    depths: Float32[np.ndarray, "h w"]


class Renderer:
    """Pictures of a world; what it keeps between pictures never changes them."""

    def __init__(self, *, image_size: int, wrist: bool = True) -> None:
        self._image_size = image_size
        self._has_wrist = wrist
        self._still = _outer_canvas(image_size)
        self._still_places = self._still.places(table_picture().shape)
        self._outer = _outer_canvas(image_size)
        self._wrist = _wrist_canvas(image_size)
        self._hands: dict[float, _Layer] = {}
        self._still_key: tuple[object, ...] = ()

    def images(self, world: World) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The cameras' pictures, by name."""
        moving = [body for body in world.bodies if not world.at_rest(body)]
        # Rays parallel to a face divide by zero, which is the right answer: it is never met.
        with np.errstate(all="ignore"):
            self._draw_still([body for body in world.bodies if world.at_rest(body)])
            pictures = {"base": self._base_picture(world, moving)}
            if self._has_wrist:
                pictures["left_wrist"] = self._wrist_picture(world, moving)
            return pictures

    def _draw_still(self, resting: list[Body]) -> None:
        """Draws what rests, if that has changed since the last time."""
        key = tuple((body.item.name, body.x, body.y, body.z, body.yaw) for body in resting)
        if key == self._still_key:
            return
        self._still_key = key
        self._table = table_picture().copy()
        for body in resting:
            bake_shadow(self._table, *shadow_place(body.centre), body.item.radius)
        self._still_parts = [body_part(body) for body in resting]
        self._still.fill(self._table, self._still_places)
        self._still.draw(self._still_parts)
        self._still_picture = self._still.picture()
        self._outer.take(self._still, (slice(None), slice(None)))

    def _base_picture(self, world: World, moving: list[Body]) -> UInt8[np.ndarray, "h w 3"]:
        pose = _pose(world)
        changed = []
        for x, y, radius in _moving_shadows(world, moving):
            changed += self._outer.shadow(x, y, radius)
        parts = [*map(body_part, moving), *hand_parts(pose, world.opening), *arm_parts(pose)]
        changed += self._outer.draw(parts)
        picture = self._still_picture.copy()
        if changed:
            pixels = self._outer.pixels(changed)
            samples = self._outer.samples(pixels)
            picture[pixels] = self._outer.picture(samples)
            self._outer.take(self._still, samples)
        return picture

    def _wrist_picture(self, world: World, moving: list[Body]) -> UInt8[np.ndarray, "h w 3"]:
        place_wrist_camera(self._wrist.camera, _pose(world))
        shadows = [bake_shadow(self._table, *shadow) for shadow in _moving_shadows(world, moving)]
        self._wrist.fill(self._table, self._wrist.places(self._table.shape))
        for where, before in reversed(shadows):
            self._table[where] = before
        self._wrist.draw([*self._still_parts, *map(body_part, moving)])
        self._wrist.put(*self._hand(world.opening))
        return self._wrist.picture()

    def _hand(self, opening: float) -> _Layer:
        """The hand as its own camera sees it."""
        if opening not in self._hands:
            if len(self._hands) >= _KEPT_HANDS:
                self._hands.clear()
            pose = (0.0, 0.0, 0.0, 0.0)
            canvas = _wrist_canvas(self._image_size)
            place_wrist_camera(canvas.camera, pose)
            canvas.draw(hand_parts(pose, opening))
            window = _drawn(canvas)
            self._hands[opening] = _Layer(window, canvas.colours[window], canvas.depths[window])
        return self._hands[opening]


def body_part(body: Body) -> Part:
    """How a thing from the table looks."""
    item, centre, foot, yaw = body.item, body.centre, (body.x, body.y, body.z), body.yaw
    cube = (item.radius, item.radius, item.radius)
    casts: dict[str, Callable[[Rays], Hits]] = {
        "ball": lambda rays: cast_ball(rays, centre, item.radius),
        "cube": lambda rays: cast_block(rays, centre, cube, yaw),
        "cylinder": lambda rays: cast_cylinder(rays, centre, item.radius, item.height / 2),
        "bowl": lambda rays: cast_dish(rays, foot, item.radius, item.height, WALL),
        "plate": lambda rays: cast_dish(rays, foot, item.radius, item.height, WALL),
        "box": lambda rays: cast_tray(rays, foot, item.radius, item.height, WALL, yaw),
    }
    return Part(centre, (item.reach, item.reach, item.height / 2), item.colour, casts[item.shape])


def shadow_place(centre: Sequence[float]) -> tuple[float, float]:
    """Where the lamp puts the shadow of something on the table."""
    lean = centre[2] / LIGHT[2]
    return centre[0] - LIGHT[0] * lean, centre[1] - LIGHT[1] * lean


def _moving_shadows(world: World, moving: list[Body]) -> list[tuple[float, float, float]]:
    """Places and radii; what is held lies in the shadow of the hand."""
    falling = [body for body in moving if body is not world.held]
    return [
        (*shadow_place((world.x, world.y, world.z + 0.03)), _HAND_SHADOW),
        *((*shadow_place(body.centre), body.item.radius) for body in falling),
    ]


def _pose(world: World) -> Pose:
    return world.x, world.y, world.z, world.yaw


def place_outer_camera(camera: Camera) -> None:
    """Puts a camera where the outer one stands: beyond the table, looking at the robot."""
    position, target = (0.56, 0.0, 0.80), (-0.03, 0.0, 0.04)
    camera.place(position=position, forward=np.subtract(target, position), up=(0.0, 0.0, 1.0))


def _outer_canvas(image_size: int) -> Canvas:
    canvas = Canvas(image_size=image_size, field_of_view=OUTER_VIEW, stride=2)
    place_outer_camera(canvas.camera)
    return canvas


def _wrist_canvas(image_size: int) -> Canvas:
    return Canvas(image_size=image_size, field_of_view=78.0, stride=1)


def _drawn(canvas: Canvas) -> Window:
    """The patch in which something has been drawn."""
    seen = np.isfinite(canvas.depths)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
