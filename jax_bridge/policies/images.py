"""Camera images on their way into a policy: any size, uint8 or float, to 224 by 224 in [-1, 1].

Two resizes with padding exist in openpi, and they differ by up to one grey level. The policy
path (client and server) works on uint8 with Pillow: `resize_with_pad`. The model itself falls
back to an antialiased linear resize of arrays: `resize_with_pad_linear`.

Source: openpi, `packages/openpi-client/src/openpi_client/image_tools.py`,
`src/openpi/shared/image_tools.py` and `src/openpi/policies/libero_policy.py`, as pinned down
by results of theirs.
Letters: h, w height and width; b any leading axes.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

IMAGE_SIZE = 224
"""Height and width that the vision tower sees, in pixels."""


def parse_image(image: Any, *, camera: str) -> UInt8[np.ndarray, "h w 3"]:
    """One camera's image as uint8, channels last.

    Args:
        image: uint8, or float in [0, 1]; [h, w, 3], or [3, h, w] as some data sets store it.
            Floats are cut, not rounded, to grey levels, as openpi does.
        camera: whose image this is, for error messages.

    Raises:
        ValueError: if rank, channels, type or range are not an image's.
    """
    pixels = np.asarray(image)
    where = f"`images[{camera!r}]`"
    if pixels.ndim != 3 or 0 in pixels.shape or 3 not in (pixels.shape[0], pixels.shape[-1]):
        raise ValueError(
            f"{where} must be one colour image of shape [height, width, 3], but got shape "
            f"{pixels.shape}. Drop batch and time axes, and the alpha channel if there is one."
        )
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                f"{where} must lie in [0, 1] if it is float, but got values in "
                f"[{low:g}, {high:g}]. Give uint8, or scale it."
            )
        pixels = (255 * pixels).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ValueError(f"{where} must be uint8 or float, but got {pixels.dtype}.")
    return pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels


def resize_with_pad(
    image: UInt8[np.ndarray, "h w 3"], height: int = IMAGE_SIZE, width: int = IMAGE_SIZE
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Scales an image to fit, keeps its proportions and centres it on black (Pillow, bilinear)."""
    if image.shape[:2] == (height, width):
        return image
    rows, columns = _fitted(image.shape[0], image.shape[1], height, width)
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (columns, rows), resample=Image.Resampling.BILINEAR
    )
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[top : top + rows, left : left + columns] = np.asarray(small)
    return canvas


def resize_with_pad_linear(
    images: UInt8[np.ndarray, "*b h w 3"] | Float[np.ndarray, "*b h w 3"],
    height: int = IMAGE_SIZE,
    width: int = IMAGE_SIZE,
) -> UInt8[np.ndarray, "*b {height} {width} 3"] | Float[np.ndarray, "*b {height} {width} 3"]:
    """The model-side resize: linear with antialiasing; floats are images in [-1, 1].

    Padding is black: 0 in uint8, -1 in float.
    """
    *lead, h, w, _ = images.shape
    if (h, w) == (height, width):
        return images
    rows, columns = _fitted(h, w, height, width)
    is_uint8 = images.dtype == np.uint8
    values = images.astype(np.float32) if is_uint8 else images
    small = np.asarray(jax.image.resize(values, (*lead, rows, columns, 3), method="linear"))
    small = small.clip(0, 255).round().astype(np.uint8) if is_uint8 else small.clip(-1.0, 1.0)
    top, left = (height - rows) // 2, (width - columns) // 2
    margins = [(0, 0)] * len(lead)
    margins += [(top, height - rows - top), (left, width - columns - left), (0, 0)]
    return np.pad(small, margins, constant_values=0 if is_uint8 else -1)


def to_model_range(image: UInt8[np.ndarray, "*b h w 3"]) -> Float32[np.ndarray, "*b h w 3"]:
    """Grey levels 0 … 255 to [-1, 1] in float32; a black image is -1 everywhere."""
    return image.astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)


def model_image(
    image: Any, *, camera: str, size: int = IMAGE_SIZE
) -> Float32[np.ndarray, "{size} {size} 3"]:
    """One camera's image as the model reads it: parsed, resized with padding, in [-1, 1].

    Raises:
        ValueError: as `parse_image`.
    """
    return to_model_range(resize_with_pad(parse_image(image, camera=camera), size, size))


def _fitted(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of an h by w image scaled to fit into height by width."""
    ratio = max(w / width, h / height)
    return max(1, int(h / ratio)), max(1, int(w / ratio))
