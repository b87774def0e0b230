"""Colours, the table's wood and shadows.

A colour is four uint16 (red, green, blue, nothing) seen as one uint64, so that a whole colour is
chosen, copied and added by one operation.

Letters: h, w height and width of a patch; x, y texels of the table.
"""

import functools

import numpy as np
from jaxtyping import Float, Int, UInt64

TEXELS_PER_METRE = 500
TABLE = (0.29, 0.34)
"""Half of the table's length (x) and width (y), in metres."""
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.13, 0.12),
    "green": (0.16, 0.62, 0.22),
    "blue": (0.14, 0.34, 0.86),
    "yellow": (0.96, 0.80, 0.12),
    "orange": (0.96, 0.48, 0.08),
    "purple": (0.52, 0.22, 0.70),
    "white": (0.93, 0.93, 0.90),
    "hand": (0.80, 0.82, 0.85),
    "arm": (0.70, 0.72, 0.76),
    "finger": (0.26, 0.27, 0.30),
    "wood": (0.80, 0.66, 0.49),
    "floor": (0.36, 0.40, 0.45),
}
_MIDTONE = 0.8
"""Light at which a surface shows its colour; above, it turns white."""


def pack(colours: Float[np.ndarray, "... 3"]) -> UInt64[np.ndarray, "..."]:
    """Colours of 0 to 1 as one number each."""
    channels = np.zeros((*colours.shape[:-1], 4), dtype=np.uint16)
    channels[..., :3] = np.clip(colours, 0, 1) * 255
    return channels.view(np.uint64)[..., 0]


@functools.cache
def ramp(name: str) -> UInt64[np.ndarray, "256"]:
    """A colour under light 0 … 1 in 256 steps, from a dark tint to a highlight."""
    colour = np.asarray(COLOURS[name])
    light = np.linspace(0, 1, 256)[:, None]
    white = np.clip((light - _MIDTONE) / (1 - _MIDTONE), 0, 1) * 0.7
    return pack((1 - white) * colour * np.minimum(light / _MIDTONE, 1) + white)


def darken(
    colours: UInt64[np.ndarray, "h w"], darkness: Float[np.ndarray, "h w"]
) -> UInt64[np.ndarray, "h w"]:
    """Takes light away: 0 leaves a colour, 1 makes it black."""
    left = (256 * (1 - darkness)).astype(np.uint64)
    return ((colours * left) >> np.uint64(8)) & np.uint64(0x00FF_00FF_00FF)


def darkness(x: np.ndarray, y: np.ndarray, radius: float) -> Float[np.ndarray, "h w"]:
    """A soft round shadow, by the distance from its middle in metres."""
    edge = (1.5 * radius - np.sqrt(x * x + y * y)) / (0.8 * radius)
    return 0.42 * np.minimum(np.maximum(edge, 0), 1)


def bake_shadow(
    table: UInt64[np.ndarray, "x y"], x: float, y: float, radius: float
) -> tuple[tuple[slice, slice], UInt64[np.ndarray, "h w"]]:
    """Darkens the table's picture around a point; returns where and what was there before."""
    patch, away = [], []
    for middle, count in zip((x, y), table.shape, strict=True):
        ends = np.array([middle - 1.5 * radius, middle + 1.5 * radius])
        # The border is the floor of all places beside the table: no shadow falls on it.
        start, stop = np.clip(texel(ends, count), 1, count - 1).tolist()
        patch.append(slice(start, stop))
        away.append((np.arange(start, stop) - count / 2) / TEXELS_PER_METRE - middle)
    where = patch[0], patch[1]
    before = table[where].copy()
    table[where] = darken(before, darkness(away[0][:, None], away[1][None, :], radius))
    return where, before


def texel(metres: np.ndarray, count: int) -> Int[np.ndarray, "..."]:
    """Place in the table's picture; what is off the table falls on its border of floor."""
    place = metres * TEXELS_PER_METRE + count / 2
    return np.minimum(np.maximum(place, 0), count - 1).astype(np.intp)


@functools.cache
def table_picture() -> UInt64[np.ndarray, "x y"]:
    """The table from above: planks along y, with a border of floor one texel wide."""
    rng = np.random.default_rng(0)
    length, width = (2 * round(half * TEXELS_PER_METRE) for half in TABLE)
    planks = 8
    plank = np.arange(length) * planks // length
    light = _MIDTONE * (0.95 + 0.05 * rng.uniform(-1, 1, planks))[plank][:, None]
    light = light + _grain(rng, length, width)
    seam = np.diff(plank, prepend=0) > 0
    light[seam | np.roll(seam, 1)] -= 0.10
    picture = ramp("wood")[(np.clip(light, 0, 1) * 255).astype(int)]
    return np.pad(picture, 1, constant_values=ramp("floor")[150])


def _grain(rng: np.random.Generator, length: int, width: int) -> Float[np.ndarray, "x y"]:
    """Streaks along y: noise that changes fast across and slowly along them."""
    coarse = rng.normal(0, 1, (length, 6))
    coarse = (coarse + np.roll(coarse, 1, axis=0)) / 2
    at = np.linspace(0, 5, width)
    left = np.minimum(at.astype(int), 4)
    share = at - left
    return 0.02 * (coarse[:, left] * (1 - share) + coarse[:, left + 1] * share)
