"""Pictures on the device: grey levels to [-1, 1], and in training a random crop, turn and colour.

The amounts are openpi's: the outer camera is cropped to 95 % and turned by up to 5 degrees, all
cameras change their colours. Crop and turn are one bilinear reading of the picture, where openpi
reads it three times and loses more sharpness.

Source: openpi, `src/openpi/models/model.py` (`preprocess_observation`).
Letters: b batch; y, x pixels.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.train_step import Prepare

BLACK = -1.0
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's lightness (ITU-R BT.601)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How much pictures are changed in training; all zeros change nothing."""

    crop: float = 0.05
    """Share of each side that is cut off, at a random place."""
    rotation: float = 5.0
    """Largest turn to either side, in degrees."""
    brightness: float = 0.3
    """Largest relative change of all values."""
    contrast: float = 0.4
    """Largest relative change of the distance from the picture's mean lightness."""
    saturation: float = 0.5
    """Largest relative change of the distance from grey."""
    move_wrist_cameras: bool = False
    """Whether wrist cameras are cropped and turned as well; openpi leaves them."""

    def __post_init__(self) -> None:
        for name in ("crop", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), but got {getattr(self, name)}.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"`rotation` must lie in [0, 180] degrees, but got {self.rotation}.")

    @property
    def moves(self) -> bool:
        """Whether pixels change their places."""
        return self.crop > 0 or self.rotation > 0

    @property
    def colours(self) -> bool:
        """Whether values change."""
        return max(self.brightness, self.contrast, self.saturation) > 0


def make_prepare(config: AugmentConfig) -> Prepare:
    """What becomes of a batch on the device.

    Args:
        config: how much pictures are changed.

    Returns:
        A pure function of (key, batch). Without a key pictures only become numbers.
    """

    def prepare(key: Any, batch: TrainingBatch) -> TrainingBatch:
        images = {}
        for number, (name, given) in enumerate(sorted(batch.observation.images.items())):
            pixels = to_numbers(jnp.asarray(given))
            if key is not None:
                moves = config.moves and (config.move_wrist_cameras or "wrist" not in name)
                pixels = _change(jax.random.fold_in(key, number), pixels, config, moves=moves)
            images[name] = pixels
        observation = dataclasses.replace(batch.observation, images=images)
        return dataclasses.replace(batch, observation=observation)

    return prepare


def to_numbers(pixels: Array) -> Float32[Array, "b y x 3"]:
    """Grey levels 0 … 255 to [-1, 1]; what is no grey level is in [-1, 1] already."""
    if pixels.dtype != jnp.uint8:
        return pixels.astype(jnp.float32)
    return pixels.astype(jnp.float32) / 255.0 * 2.0 - 1.0


def _change(
    key: Any, pixels: Float32[Array, "b y x 3"], config: AugmentConfig, *, moves: bool
) -> Float32[Array, "b y x 3"]:
    """Each picture its own way."""
    for_places, for_colours = jax.random.split(key)
    if moves:
        move = functools.partial(_move, config=config)
        pixels = jax.vmap(move)(jax.random.split(for_places, len(pixels)), pixels)
    if config.colours:
        recolour = functools.partial(_recolour, config=config)
        pixels = jax.vmap(recolour)(jax.random.split(for_colours, len(pixels)), pixels)
    return pixels


def _move(
    key: Any, picture: Float32[Array, "y x 3"], config: AugmentConfig
) -> Float32[Array, "y x 3"]:
    """A crop at a random place, scaled up to the picture's size, turned about its middle."""
    for_turn, for_place = jax.random.split(key)
    limit = jnp.deg2rad(config.rotation)
    turn = jax.random.uniform(for_turn, (), minval=-limit, maxval=limit)
    height, width, _ = picture.shape
    size = jnp.asarray([height, width], jnp.float32)
    shift = jax.random.uniform(for_place, (2,), minval=-0.5, maxval=0.5) * config.crop * size
    middle = (size - 1) / 2
    down, right = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    down, right = down - middle[0], right - middle[1]
    cos, sin = jnp.cos(turn) * (1 - config.crop), jnp.sin(turn) * (1 - config.crop)
    rows = cos * down - sin * right + middle[0] + shift[0]
    columns = sin * down + cos * right + middle[1] + shift[1]
    return _read(picture, rows, columns)


def _read(
    picture: Float32[Array, "y x 3"], rows: Float32[Array, "y x"], columns: Float32[Array, "y x"]
) -> Float32[Array, "y x 3"]:
    """The picture between its pixels; black outside."""
    at = functools.partial(
        jax.scipy.ndimage.map_coordinates, coordinates=[rows, columns], order=1, cval=BLACK
    )
    return jax.vmap(at, in_axes=-1, out_axes=-1)(picture)


def _recolour(
    key: Any, picture: Float32[Array, "y x 3"], config: AugmentConfig
) -> Float32[Array, "y x 3"]:
    """Brightness, contrast and saturation, in this order, within the range of a picture."""
    amounts = jnp.asarray([config.brightness, config.contrast, config.saturation])
    drawn = 1 + amounts * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
    values = jnp.clip((picture + 1) / 2 * drawn[0], 0, 1)
    mean = (values @ jnp.asarray(GREY)).mean()
    values = jnp.clip(mean + (values - mean) * drawn[1], 0, 1)
    grey = (values @ jnp.asarray(GREY))[..., None]
    values = jnp.clip(grey + (values - grey) * drawn[2], 0, 1)
    return values * 2 - 1
