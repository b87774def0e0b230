"""What one camera sees: colours and depths, drawn finer than the picture that comes out.

Every part draws itself where it is nearer than what is there; in the end each pixel is the mean
of `FINER` times `FINER` colours.

Letters: h, w height and width in pixels; x, y texels of the table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt64

from jax_bridge.environments.tabletop.camera import Camera, Point, Rays, Window
from jax_bridge.environments.tabletop.palette import darken, darkness, ramp, texel
from jax_bridge.environments.tabletop.shapes import Hits

FINER = 2


class Part(NamedTuple):
    """A shape in one colour, with the upright box that it fits into."""

    centre: Point
    half: Point
    colour: str
    cast: Callable[[Rays], Hits]


class Canvas:
    """Colours and depths of one camera."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.colours = np.zeros((camera.size, camera.size), dtype=np.uint64)
        self.depths = np.full((camera.size, camera.size), np.inf, dtype=np.float32)

    def take(self, other: "Canvas", window: Window) -> None:
        """Copies a patch of another canvas of the same camera."""
        self.colours[window] = other.colours[window]
        self.depths[window] = other.depths[window]

    def fill(self, table: UInt64[np.ndarray, "x y"]) -> None:
        """Draws the table behind everything; one colour a pixel, since it is smooth."""
        np.divide(-float(self.camera.position[2]), self.camera.rays().axis(2), out=self.depths)
        rays = self.camera.rays((slice(None, None, FINER), slice(None, None, FINER)))
        depths = self.depths[::FINER, ::FINER]
        x = texel(depths * rays.axis(0) + rays.origin[0], table.shape[0])
        y = texel(depths * rays.axis(1) + rays.origin[1], table.shape[1])
        colours = table.reshape(-1)[x * table.shape[1] + y]
        count = len(colours)
        self.colours.reshape(count, FINER, count, FINER)[:] = colours[:, None, :, None]

    def draw(self, parts: Sequence[Part]) -> list[Window]:
        """Draws shapes in any order; returns the patches that may have changed."""
        windows = self.camera.windows([part.centre for part in parts], [p.half for p in parts])
        for part, window in zip(parts, windows, strict=True):
            if window is not None:
                depth, light = part.cast(self.camera.rays(window))
                shades = ramp(part.colour)[(light * 255).astype(np.uint8)]
                self.put(window, shades, depth)
        return [window for window in windows if window is not None]

    def put(self, window: Window, colours: UInt64[np.ndarray, "h w"], depths: np.ndarray) -> None:
        """Takes over what is nearer than what is there."""
        seen = depths < self.depths[window]
        np.copyto(self.colours[window], colours, where=seen)
        np.copyto(self.depths[window], depths, where=seen)

    def shadow(self, x: float, y: float, radius: float) -> list[Window]:
        """Darkens the table around a point; returns the patches that may have changed."""
        half = (1.5 * radius, 1.5 * radius, 0)
        windows = [w for w in self.camera.windows([(x, y, 0)], [half]) if w is not None]
        for window in windows:
            rays = self.camera.rays(window)
            depths = -float(rays.origin[2]) / rays.axis(2)
            away_x = depths * rays.axis(0) + (float(rays.origin[0]) - x)
            away_y = depths * rays.axis(1) + (float(rays.origin[1]) - y)
            on_table = np.abs(self.depths[window] - depths) < 1e-4
            dark = on_table * darkness(away_x, away_y, radius)
            self.colours[window] = darken(self.colours[window], dark)
        return windows

    def picture(self, window: Window = (slice(None), slice(None))) -> UInt8[np.ndarray, "h w 3"]:
        """A patch, whose edges are multiples of `FINER`, at the resolution of the picture."""
        colours = self.colours[window]
        rows = colours[0::2] + colours[1::2]
        mean = (rows[:, 0::2] + rows[:, 1::2]) >> np.uint64(2)
        # Each colour is four uint16 in eight bytes; the low byte of each comes first.
        return mean.view(np.uint8).reshape(*mean.shape, 8)[..., 0:6:2].copy()


def around(windows: Sequence[Window]) -> Window:
    """The smallest patch with edges at multiples of `FINER` that holds all of them."""
    rows, columns = (
        slice(
            min((window[i].start for window in windows), default=0) // FINER * FINER,
            -(-max((window[i].stop for window in windows), default=0) // FINER) * FINER,
        )
        for i in (0, 1)
    )
    return rows, columns
