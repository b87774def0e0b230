"""SigLIP's image encoder, as PaliGemma uses it: every patch becomes a token.

Letters: b images; y, x pixels; t tokens of an image; w width; h heads; d head width; o output
width.

Source: Zhai et al. 2023, arXiv:2303.15343; Steiner et al. 2024, arXiv:2412.03555.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_bridge.pi0.config import VisionConfig
from jax_bridge.pi0.gemma import Attend
from jax_bridge.pi0.projection import project

EPSILON = 1e-6


def encode_images(
    params: Mapping,
    images: Float[Array, "b y x 3"],
    vision: VisionConfig,
    dtype: jnp.dtype,
    attention: Attend | None = None,
) -> Float[Array, "b t o"]:
    """Encodes images to tokens of the language model's width.

    Args:
        params: The subtree `PaliGemma/img`.
        images: In [-1, 1].
        vision: Sizes.
        dtype: Type of activations; patches are embedded in float32 whatever it is.
        attention: What mixes values by attention; None: the plain way.
    """
    x = embed_patches(params, images, vision).astype(dtype)
    blocks = params["Transformer"]["encoderblock"]

    def body(x: Array, block: Mapping) -> tuple[Array, None]:
        return encoder_block(block, x, attention), None

    x, _ = jax.lax.scan(body, x, blocks)
    return dense(params["head"], layer_norm(params["Transformer"]["encoder_norm"], x))


def embed_patches(
    params: Mapping, images: Float[Array, "b y x 3"], vision: VisionConfig
) -> Float[Array, "b t w"]:
    """Cuts images into patches and maps each linearly, adding the position's embedding."""
    grid, side = vision.grid, vision.patch_size
    images = images[:, : grid * side, : grid * side].astype(jnp.float32)
    patches = images.reshape(-1, grid, side, grid, side, 3).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(-1, grid * grid, side * side * 3)
    kernel = params["embedding"]["kernel"].astype(jnp.float32).reshape(side * side * 3, -1)
    return project(patches, kernel) + params["embedding"]["bias"] + params["pos_embedding"]


def encoder_block(
    block: Mapping, x: Float[Array, "b t w"], attention: Attend | None = None
) -> Float[Array, "b t w"]:
    """A pre-norm transformer block; every token sees every other one."""
    x = x + self_attention(
        block["MultiHeadDotProductAttention_0"], layer_norm(block["LayerNorm_0"], x), attention
    )
    y = dense(block["MlpBlock_0"]["Dense_0"], layer_norm(block["LayerNorm_1"], x))
    return x + dense(block["MlpBlock_0"]["Dense_1"], jax.nn.gelu(y, approximate=True))


def self_attention(
    params: Mapping, x: Float[Array, "b t w"], attention: Attend | None = None
) -> Float[Array, "b t w"]:
    """Multi-head attention with biases; scores and softmax in float32."""
    query, key, value = (_heads(params[name], x) for name in ("query", "key", "value"))
    if attention is not None:
        heads = attention(query, key, value).mixed
        kernel = params["out"]["kernel"].reshape(-1, x.shape[-1])
        return dense({"kernel": kernel, "bias": params["out"]["bias"]}, heads)
    scale = jnp.asarray(query.shape[-1] ** -0.5, x.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query * scale, key, preferred_element_type=jnp.float32)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = jnp.einsum("bhqk,bkhd->bhqd", weights.astype(x.dtype), value)
    mixed = (mixed / weights.sum(axis=-1, keepdims=True)).astype(x.dtype)
    kernel = params["out"]["kernel"].astype(x.dtype)
    out = jnp.einsum("bhqd,hdw->bqw", mixed, kernel)
    return out + params["out"]["bias"].astype(x.dtype)


def _heads(projection: Mapping, x: Float[Array, "b t w"]) -> Float[Array, "b t h d"]:
    """Projects to all heads at once."""
    kernel, bias = projection["kernel"], projection["bias"]
    flat = dense({"kernel": kernel.reshape(kernel.shape[0], -1), "bias": bias.reshape(-1)}, x)
    return flat.reshape(*x.shape[:2], *bias.shape)


def layer_norm(norm: Mapping, x: Float[Array, "*a w"]) -> Float[Array, "*a w"]:
    """LayerNorm, computed in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    normed = centred * (jax.lax.rsqrt(variance + EPSILON) * norm["scale"]) + norm["bias"]
    return normed.astype(x.dtype)


def dense(layer: Mapping, x: Float[Array, "*a w"]) -> Float[Array, "*a v"]:
    """A linear map with bias, in the type of its input."""
    return project(x, layer["kernel"].astype(x.dtype)) + layer["bias"].astype(x.dtype)
