"""Pinhole cameras and the rays of a patch of their image.

A ray's direction is the sum of a vector of its row and a vector of its column, so products with a
fixed vector cost one outer sum. Directions are not of unit length: a point `t` along a ray lies at
depth `t` in front of the camera, so `t` serves as the depth buffer of all shapes alike.

Letters: h, w height and width of a patch, in pixels.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

Point = Sequence[float] | np.ndarray
"""Three numbers: a place, a direction or lengths along x, y and z."""

_CORNERS = np.array(
    [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rays:
    """Rays from one point through the pixels of a patch."""

    origin: Float32[np.ndarray, "3"]
    rows: Float32[np.ndarray, "h 3"]
    columns: Float32[np.ndarray, "w 3"]
    square: Float32[np.ndarray, "h w"]
    """Squared length of each direction."""

    def dot(self, vector: Point) -> Float32[np.ndarray, "h w"]:
        """Product of every direction with one vector."""
        v = np.asarray(vector, dtype=np.float32)
        return (self.rows @ v)[:, None] + (self.columns @ v)[None, :]

    def axis(self, i: int) -> Float32[np.ndarray, "h w"]:
        """One component of every direction."""
        return self.rows[:, i, None] + self.columns[None, :, i]


Window = tuple[slice, slice]
"""Rows and columns of a patch."""


class Camera:
    """A camera of square images."""

    def __init__(self, *, size: int, field_of_view: float) -> None:
        """Makes a camera that still has to be placed.

        Args:
            size: Height and width, in pixels.
            field_of_view: Angle from edge to edge, in degrees.
        """
        self.size = size
        self.focal = size / 2 / math.tan(math.radians(field_of_view) / 2)
        self._offsets = ((np.arange(size) + 0.5 - size / 2) / self.focal).astype(np.float32)
        squares = self._offsets**2
        self._square = 1 + squares[:, None] + squares[None, :]

    def place(self, *, position: Point, forward: Point, up: Point) -> None:
        """Puts the camera somewhere, looking forward; `up` is what should be up in the image."""
        ahead = _unit(*forward)
        right = _unit(*_cross(ahead, up))
        axes = [right, _cross(ahead, right), ahead]
        self._axes = np.array(axes, dtype=np.float32).T.copy()
        self.position = np.asarray(position, dtype=np.float32)
        self._rows = self._axes[:, 2] + self._offsets[:, None] * self._axes[:, 1]
        self._columns = self._offsets[:, None] * self._axes[:, 0]

    def rays(self, window: Window = (slice(None), slice(None))) -> Rays:
        """The rays of a patch."""
        return Rays(
            origin=self.position,
            rows=self._rows[window[0]],
            columns=self._columns[window[1]],
            square=self._square[window],
        )

    def pixels(self, points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 2"]:
        """Where points appear: pixels from the left and from the top, also beside the picture."""
        seen = (points - self.position) @ self._axes
        return seen[:, :2] / np.maximum(seen[:, 2:], 0.01) * self.focal + self.size / 2

    def windows(self, centres: Sequence[Point], halves: Sequence[Point]) -> list[Window | None]:
        """The patches that upright boxes may touch; None where that is nothing.

        Args:
            centres: Middle of each box.
            halves: Half of each box's length along x, y and z.
        """
        middle, reach = np.asarray(centres, np.float32), np.asarray(halves, np.float32)
        corners = (middle[:, None] + _CORNERS * reach[:, None]).reshape(-1, 3)
        pixels = self.pixels(corners).reshape(-1, len(_CORNERS), 2)
        low = np.maximum(pixels.min(axis=1), 0).astype(int).tolist()
        high = np.minimum(pixels.max(axis=1) + 1, self.size).astype(int).tolist()
        return [_window(a, b) for a, b in zip(low, high, strict=True)]


def _cross(a: Point, b: Point) -> tuple[float, float, float]:
    """The cross product; numpy's takes ten times as long for one."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def _window(low: list[int], high: list[int]) -> Window | None:
    if high[0] <= low[0] or high[1] <= low[1]:
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])
