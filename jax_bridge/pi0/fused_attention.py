"""Attention by the backend's fused kernel, which never writes the matrix of scores to memory.

On a GPU that is cuDNN's kernel, in bfloat16. It is used where it was tried on the model's own
shapes and gave the numbers of the plain path; everywhere else, and wherever probabilities are
captured, the plain path computes.

Letters: b batch; t tokens; s tokens they attend to; h query heads; n key-value heads; d head width.

Source: Dao et al. 2022, arXiv:2205.14135 (the idea).
"""

import functools
import logging
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Attend, Attended, attend

logger = logging.getLogger(__name__)
ATTENTIONS = ("auto", "plain", "fused")
"""Fused where that was found right; never; always."""
KERNELS: dict[str, Literal["cudnn", "xla"]] = {"gpu": "cudnn"}
"""By backend; the others compile what jax writes for every backend, which is no faster."""
TOLERANCE = 0.02
"""Of the root mean square difference from the plain path: what rounding to bfloat16 explains."""


def fused_attend(
    query: Float[Array, "b t h d"],
    keys: Float[Array, "b s n d"],
    values: Float[Array, "b s n d"],
    mask: Bool[Array, "b t s"] | None = None,
) -> Attended:
    """What `gemma.attend` computes, without the probabilities; no mask: all is visible."""
    mixed = jax.nn.dot_product_attention(
        query,
        keys,
        values,
        mask=None if mask is None else mask[:, None],
        implementation=KERNELS.get(jax.default_backend(), "xla"),
    )
    return Attended(mixed.reshape(*query.shape[:2], -1), None)


def choose_attention(wanted: str, config: Pi0Config) -> Attend | None:
    """The fused path, or None for the plain one.

    Raises:
        ValueError: if nobody knows the word.
    """
    if wanted not in ATTENTIONS:
        raise ValueError(f"`attention` must be one of {', '.join(ATTENTIONS)}, but got {wanted!r}.")
    fused = wanted == "fused" or (wanted == "auto" and fused_is_right(config))
    return fused_attend if fused else None


@functools.cache
def fused_is_right(config: Pi0Config) -> bool:
    """Whether this backend has a kernel that takes the model's shapes and computes the same."""
    if jax.default_backend() not in KERNELS or config.dtype != "bfloat16":
        return False
    try:
        with jax.ensure_compile_time_eval():
            worst = max(_difference(*shape, config) for shape in _shapes(config))
    except Exception as error:  # a kernel refuses in many ways, and none of them ends a rollout
        logger.warning("Plain attention is used; the fused kernel refuses: %s", error)
        return False
    if not worst <= TOLERANCE:  # not a number is wrong, too
        logger.warning("Plain attention is used; the fused kernel is off by %.3g.", worst)
        return False
    return True


def _shapes(config: Pi0Config) -> list[tuple[int, int, int, int, int]]:
    """Tokens, tokens seen, heads, key-value heads and head width: images, prefix, flow step."""
    vlm, vision = config.vlm, config.vision
    heads = (vlm.heads, vlm.kv_heads, vlm.head_dim)
    return [
        (vision.tokens, vision.tokens, vision.heads, vision.heads, vision.head_dim),
        (config.prefix_len, config.prefix_len, *heads),
        (config.suffix_len, config.prefix_len + config.suffix_len, *heads),
    ]


def _difference(
    tokens: int, seen: int, heads: int, kv_heads: int, dim: int, config: Pi0Config
) -> float:
    """Relative difference of both paths on random numbers; a quarter of the keys is padding.

    A quarter of the tokens sees nothing at all, as those of a camera that is not there: their
    numbers are never read, but must be numbers.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (1, tokens, heads, dim), config.jax_dtype)
    key, value = (
        jax.random.normal(k, (1, seen, kv_heads, dim), config.jax_dtype) for k in keys[1:]
    )
    looking, visible = (
        jnp.arange(tokens) < -(-3 * tokens // 4),
        jnp.arange(seen) < -(-3 * seen // 4),
    )
    mask = (looking[:, None] & visible)[None]
    fused, plain = (
        jax.jit(path)(query, key, value, mask).mixed.astype(jnp.float32)
        for path in (fused_attend, attend)
    )
    if not bool(jnp.isfinite(fused).all()):
        return float("nan")
    error = jnp.where(looking[None, :, None], fused - plain, 0)
    return float(jnp.sqrt(jnp.square(error).mean() / jnp.square(plain).mean()))
