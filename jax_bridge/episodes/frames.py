"""Stored frames to upright pictures with red first.

Letters: n frames; h, w height and width.
"""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jax_bridge.episodes.episode_info import Camera
from jax_bridge.episodes.hdf5_values import file_of


def upright(
    stored: Sequence[object] | np.ndarray, camera: Camera
) -> UInt8[np.ndarray, "n {camera.height} {camera.width} 3"]:
    """Frames of one camera as they are to be seen.

    Raises:
        OSError: if a picture file cannot be decoded.
        ValueError: if a frame has another size than the first of its episode.
    """
    frames = [_decoded(frame) if camera.encoding == "jpeg" else frame for frame in stored]
    size = (camera.height, camera.width, 3)
    # A fourth channel is how opaque a pixel is.
    pictures = np.stack([np.asarray(f, np.uint8)[..., :3] for f in frames]) if frames else np.empty(
        (0, *size), np.uint8
    )  # fmt: skip
    if pictures.shape[1:] != size:
        raise ValueError(f"frames are {list(pictures.shape[1:])} instead of {list(size)}")
    if camera.encoding == "bgr":
        pictures = pictures[..., ::-1]
    if camera.turn in ("flip", "rotate"):
        pictures = pictures[:, ::-1]
    if camera.turn in ("mirror", "rotate"):
        pictures = pictures[:, :, ::-1]
    return np.ascontiguousarray(pictures)


def _decoded(stored: object) -> UInt8[np.ndarray, "h w 3"]:
    return np.asarray(Image.open(io.BytesIO(file_of(stored))).convert("RGB"))
