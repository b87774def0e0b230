"""Actions that the backbone says in FAST tokens, back in the model's units.

Letters: b batch; f tokens; t steps of a chunk; d action dimensions of the robot.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.ki.data.fast_ids import FastIds

NO_CODE = np.asarray([-1], np.int64)
"""What the strict decoder refuses: stands for a sequence that is no chunk's."""


class SpokenChunks(NamedTuple):
    """Chunks of some sequences."""

    actions: Float[np.ndarray, "b t d"]
    """Normalised; zeros where a sequence stands for no chunk."""
    failed: Bool[np.ndarray, " b"]


def chunks_of(
    ids: Int[np.ndarray, "b f"],
    mask: Bool[np.ndarray, "b f"],
    fast: FastIds,
    tokenizer: FastTokenizer,
    *,
    steps: int,
    dims: int,
) -> SpokenChunks:
    """Chunks of decoded tokens; a sequence that is none gives zeros and is marked.

    Args:
        ids: rows of the embedding table, as `decode_fast` gives them.
        mask: false behind `|` or the end mark.
        fast: how codes became ids.
        tokenizer: of the codes.
        steps: of a chunk.
        dims: action dimensions.
    """
    said = [fast.codes_of(row[valid]) for row, valid in zip(ids, mask, strict=True)]
    codes = [NO_CODE if found is None else found.astype(np.int64) for found in said]
    decoded = tokenizer.decode(codes, steps=steps, dims=dims, on_error="zeros")
    return SpokenChunks(decoded.actions, np.asarray([e is not None for e in decoded.errors]))
