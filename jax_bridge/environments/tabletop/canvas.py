"""What one camera sees: colours and depths of samples, of which each pixel averages four.

Every part draws itself where it is nearer than what is there. With a stride of 2 each pixel has
four samples of its own, for a camera that stands still; with a stride of 1 the samples are the
corners of the pixels and shared by neighbours, which costs a quarter and is a little softer.

Letters: h, w height and width in pixels; x, y texels of the table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from jax_bridge.environments.tabletop.camera import Camera, Point, Rays, Window
from jax_bridge.environments.tabletop.palette import darken, darkness, ramp, texel
from jax_bridge.environments.tabletop.shapes import Hits


class Part(NamedTuple):
    """A shape in one colour, with the upright box that it fits into."""

    centre: Point
    half: Point
    colour: str
    cast: Callable[[Rays], Hits]


class Canvas:
    """Samples of one camera."""

    def __init__(self, *, image_size: int, field_of_view: float, stride: int) -> None:
        size = stride * image_size + 2 - stride
        self.stride = stride
        self.camera = Camera(size=size, field_of_view=field_of_view)
        self.colours = np.zeros((size, size), dtype=np.uint64)
        self.depths = np.full((size, size), np.inf, dtype=np.float32)

    def take(self, other: "Canvas", window: Window) -> None:
        """Copies a patch of another canvas of the same camera."""
        self.colours[window] = other.colours[window]
        self.depths[window] = other.depths[window]

    def places(self, shape: tuple[int, ...]) -> Int[np.ndarray, "h w"]:
        """Where in the flat picture of a table each sample looks."""
        rays = self.camera.rays()
        depths = -float(rays.origin[2]) / rays.axis(2)
        x = texel(depths * rays.axis(0) + rays.origin[0], shape[0])
        y = texel(depths * rays.axis(1) + rays.origin[1], shape[1])
        return x * shape[1] + y

    def fill(self, table: UInt64[np.ndarray, "x y"], places: Int[np.ndarray, "h w"]) -> None:
        """Draws the table behind everything."""
        table.take(places, out=self.colours, mode="clip")
        self.depths.fill(np.inf)

    def draw(self, parts: Sequence[Part]) -> list[Window]:
        """Draws shapes in any order; returns the patches that may have changed."""
        windows = self.camera.windows([part.centre for part in parts], [p.half for p in parts])
        for part, window in zip(parts, windows, strict=True):
            if window is not None:
                depth, light = part.cast(self.camera.rays(window))
                shades = ramp(part.colour).take((light * 255).astype(np.uint8))
                self.put(window, shades, depth)
        return [window for window in windows if window is not None]

    def put(self, window: Window, colours: UInt64[np.ndarray, "h w"], depths: np.ndarray) -> None:
        """Takes over what is nearer than what is there."""
        seen = depths < self.depths[window]
        np.copyto(self.colours[window], colours, where=seen)
        np.copyto(self.depths[window], depths, where=seen)

    def shadow(self, x: float, y: float, radius: float) -> list[Window]:
        """Darkens the table around a point; returns the patches that may have changed."""
        half = (1.5 * radius, 1.5 * radius, 0.0)
        windows = [w for w in self.camera.windows([(x, y, 0.0)], [half]) if w is not None]
        for window in windows:
            rays = self.camera.rays(window)
            depths = -float(rays.origin[2]) / rays.axis(2)
            away_x = depths * rays.axis(0) + (float(rays.origin[0]) - x)
            away_y = depths * rays.axis(1) + (float(rays.origin[1]) - y)
            on_table = np.isinf(self.depths[window])
            dark = on_table * darkness(away_x, away_y, radius)
            self.colours[window] = darken(self.colours[window], dark)
        return windows

    def picture(self, window: Window = (slice(None), slice(None))) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a patch of samples."""
        colours = self.colours[window]
        rows = colours[: -1 : self.stride] + colours[1 :: self.stride]
        mean = (rows[:, : -1 : self.stride] + rows[:, 1 :: self.stride]) >> np.uint64(2)
        # Each colour is four uint16 in eight bytes; the low byte of each comes first.
        return mean.view(np.uint8).reshape(*mean.shape, 8)[..., 0:6:2].copy()

    def pixels(self, windows: Sequence[Window]) -> Window:
        """The smallest patch of the picture that may change with patches of samples."""
        last = (self.camera.size - 2) // self.stride
        rows, columns = (
            slice(
                max((min(w[i].start for w in windows) - 2 + self.stride) // self.stride, 0),
                min((max(w[i].stop for w in windows) - 1) // self.stride, last) + 1,
            )
            for i in (0, 1)
        )
        return rows, columns

    def samples(self, pixels: Window) -> Window:
        """The samples of a patch of the picture."""
        rows, columns = (
            slice(part.start * self.stride, (part.stop - 1) * self.stride + 2) for part in pixels
        )
        return rows, columns
