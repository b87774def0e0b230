"""The instructions' embeddings, and how well a reading points to the right one.

Letters: n readings, c cells, k dimensions, i instructions.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from datamodules.encoders.text_space import TextSpace
from datamodules.encoders.word_vectors import WordVectors, words_of


def embed_instructions(texts: Sequence[str]) -> Float64[np.ndarray, "i k"]:
    """Centred vectors of unit length by the built-in encoder.

    Raises:
        ValueError: if all texts hold the same words.
    """
    if len({frozenset(words_of(text)) for text in texts}) < 2:
        raise ValueError(
            f"`DATASET` must hold instructions of different words, but got {list(texts)[:3]!r}. "
            "Collect or select more tasks."
        )
    encoder = WordVectors()
    encoder.fit(sorted(texts))
    vectors = encoder.embed(texts)
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
