"""Pooling tokens while reading, where a data set holds tokens but not their pool.

Letters: b batch, t tokens, d width.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from jax_bridge.shards import FieldSpec

TEXT_PARTS = ("instruction", "state_text")
"""Regions whose tokens are stored once, under `text`, with a mask of their own."""
TOKEN_AXES = ("token", "ar_step")
"""Axes of single tokens: what was read, or what was said, one token a decoding step."""
POOLS = ("mean", "last", "max")
"""How tokens become one vector while they are read."""


def token_axis(spec: FieldSpec) -> str | None:
    """The axis of single tokens; None where there is none."""
    return next((axis for axis in spec.axes if axis in TOKEN_AXES), None)


def tokens_field(name: str, fields: Mapping[str, FieldSpec]) -> tuple[str, str | None] | None:
    """The field of tokens that a pooled field can be made from, and the mask of the region.

    Returns:
        Both names, the mask None where every token is valid; or None where there is no such field.
    """
    expert, site, region, pool = name.split(".")
    if pool not in POOLS:
        return None
    stored = [region, *(["text"] if region in TEXT_PARTS else [])]
    for candidate in stored:
        tokens = f"{expert}.{site}.{candidate}.tokens"
        mask = f"mask.{region}"
        if tokens not in fields or token_axis(fields[tokens]) is None:
            continue
        if mask in fields or candidate == region:
            return tokens, mask if mask in fields else None
    return None


def pool_tokens(
    values: Shaped[np.ndarray, "b *cells t d"], mask: Bool[np.ndarray, "b t"], pool: str
) -> Float32[np.ndarray, "b *cells d"]:
    """Pools over the valid tokens, in float32; zeros where there is none.

    Args:
        values: tokens on the last axis but one.
        mask: which tokens are valid.
        pool: `mean`, `last` or `max`.
    """
    places = (len(mask), *[1] * (values.ndim - 3), mask.shape[1], 1)
    valid, numbers = mask.reshape(places), values.astype(np.float32)
    if pool == "mean":
        count = np.maximum(valid.sum(-2), 1)
        return (numbers * valid).sum(-2, dtype=np.float32) / count.astype(np.float32)
    if pool == "last":
        last = mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
        found = np.take_along_axis(numbers, last.reshape(-1, *[1] * (values.ndim - 1)), -2)
        return found[..., 0, :] * valid.any(-2)
    highest = np.where(valid, numbers, -np.inf).max(-2)
    return np.where(valid.any(-2), highest, np.float32(0))
