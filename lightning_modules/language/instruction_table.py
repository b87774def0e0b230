"""The instructions' embeddings, and how well a reading points to the right one.

Letters: n readings, c cells, k dimensions, i instructions.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from datamodules.encoders.registry import make_encoder
from datamodules.encoders.text_space import TextSpace
from datamodules.statistics import cache_folder


def embed_instructions(
    texts: Sequence[str], encoder_name: str = "tfidf"
) -> Float64[np.ndarray, "i k"]:
    """Centred vectors of unit length.

    Args:
        texts: the different instructions.
        encoder_name: a built-in encoder, a folder, or a name on the hub.

    Raises:
        ValueError: if the encoder cannot tell any two texts apart.
        FileNotFoundError: if there is no such encoder.
    """
    alike = (
        f"`DATASET` must hold instructions of different words, but got {list(texts)[:3]!r}, which "
        f"{encoder_name} cannot tell apart. Collect or select more tasks, or take another encoder."
    )
    encoder = make_encoder(encoder_name, cache_folder())
    if len(set(texts)) < 2:
        raise ValueError(alike)
    encoder.fit(sorted(texts))
    vectors = encoder.embed(texts)
    if not np.ptp(vectors, axis=0).any():
        raise ValueError(alike)
    inside = TextSpace(encoder.embed(sorted(texts))).project(vectors)
    return inside / np.maximum(np.linalg.norm(inside, axis=1, keepdims=True), 1e-12)


def compare_readings(
    readings: Float[np.ndarray, "n c k"],
    table: Float64[np.ndarray, "i k"],
    truth: Int64[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, "n c"], Float64[np.ndarray, "n c"], Int64[np.ndarray, "n c"]]:
    """Language loss, rank of the true instruction, and the nearest instruction.

    Language loss is 1 - cosine; of instructions that are just as near as the true one, half count
    as nearer.
    """
    size = np.linalg.norm(readings, axis=-1, keepdims=True)
    near = (readings / np.where(size > 0, size, 1)) @ table.T
    own = np.take_along_axis(near, truth[:, None, None], axis=-1)
    rank = 1 + (near > own + 1e-9).sum(-1) + ((np.abs(near - own) <= 1e-9).sum(-1) - 1) / 2
    return 1 - own[..., 0], rank.astype(np.float64), near.argmax(-1).astype(np.int64)
