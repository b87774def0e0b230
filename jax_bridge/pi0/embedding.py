"""From an observation, noisy actions and a time to the tokens of both experts.

Letters: b batch; t tokens; p prefix tokens; s suffix tokens; h action horizon; a action
dimensions; w width; c conditions (1 or b).

Source: Black et al. 2024, arXiv:2410.24164, and openpi.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Attend
from jax_bridge.pi0.observation import Observation
from jax_bridge.pi0.siglip import encode_images
from jax_bridge.vocabulary import CAMERAS

MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0


class Prefix(NamedTuple):
    """Tokens of images and prompt."""

    tokens: Float[Array, "b p w"]
    mask: Bool[Array, "b p"]
    """False at masked cameras and padding."""


class TimeEmbedding(NamedTuple):
    """What the action expert is told about the flow's time."""

    shift: Float[Array, "c w"] | None
    """π0: the time's part of the first map of the action-time MLP."""
    condition: Float[Array, "c w"] | None
    """π0.5: adaRMS's condition."""


def embed_prefix(
    params: Mapping,
    observation: Observation,
    config: Pi0Config,
    *,
    attention: Attend | None = None,
) -> Prefix:
    """Tokens of all cameras that were given, then of the prompt."""
    # A camera that no row has may be left out: its tokens are masked and advance no position.
    cameras = [camera.openpi_key for camera in CAMERAS if camera.openpi_key in observation.images]
    images = jnp.concatenate([jnp.asarray(observation.images[key]) for key in cameras])
    encoded = encode_images(
        params["PaliGemma"]["img"], images, config.vision, config.jax_dtype, attention
    )
    text = embed_tokens(params, jnp.asarray(observation.tokenized_prompt), config)
    seen = [
        jnp.repeat(jnp.asarray(observation.image_masks[key])[:, None], config.vision.tokens, 1)
        for key in cameras
    ]
    tokens = jnp.concatenate([*jnp.split(encoded, len(cameras)), text], axis=1)
    mask = jnp.concatenate([*seen, observation.tokenized_prompt_mask], axis=1)
    return Prefix(tokens, mask.astype(bool))


def embed_tokens(
    params: Mapping, ids: Int[Array, "b t"], config: Pi0Config
) -> Float[Array, "b t w"]:
    """Rows of the embedding table, times sqrt(width)."""
    table = params["PaliGemma"]["llm"]["embedder"]["input_embedding"]
    text = jnp.asarray(table)[ids].astype(config.jax_dtype)
    return text * jnp.asarray(config.vlm.width**0.5, config.jax_dtype)


def sinusoids(time: Float32[Array, " c"], width: int) -> Float32[Array, "c w"]:
    """Sine and cosine of the time at geometrically spaced periods, sines first."""
    fraction = jnp.linspace(0.0, 1.0, width // 2)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction
    angle = time[:, None] * (1.0 / period * 2 * jnp.pi)[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def embed_time(params: Mapping, time: Float32[Array, " c"], config: Pi0Config) -> TimeEmbedding:
    """Everything about the time that does not depend on the actions."""
    embedded = sinusoids(time, config.action.width)
    if config.pi05:
        hidden = jax.nn.swish(linear(params["time_mlp_in"], embedded))
        return TimeEmbedding(None, jax.nn.swish(linear(params["time_mlp_out"], hidden)))
    first = params["action_time_mlp_in"]
    rows = {"kernel": first["kernel"][config.action.width :], "bias": first["bias"]}
    return TimeEmbedding(linear(rows, embedded), None)


def embed_suffix(
    params: Mapping,
    state: Float[Array, "b a"],
    noisy_actions: Float[Array, "b h a"],
    time: TimeEmbedding,
    config: Pi0Config,
) -> Float[Array, "b s w"]:
    """Tokens of the noisy actions, with π0's state token before them."""
    tokens = linear(params["action_in_proj"], noisy_actions)
    if config.pi05:
        return tokens
    assert time.shift is not None
    rows = params["action_time_mlp_in"]["kernel"][: config.action.width]
    hidden = jax.nn.swish(tokens @ rows + time.shift[:, None])
    tokens = linear(params["action_time_mlp_out"], hidden)
    return jnp.concatenate([linear(params["state_proj"], state)[:, None], tokens], axis=1)


def linear(layer: Mapping, x: Float[Array, "*c v"]) -> Float[Array, "*c w"]:
    """A linear map with bias, in the wider type of input and weights."""
    return x @ layer["kernel"] + layer["bias"]


def suffix_groups(config: Pi0Config) -> np.ndarray:
    """Number of each suffix token's group; a token sees its own group and earlier ones."""
    actions = np.zeros(config.action_horizon, np.int32)
    return actions if config.pi05 else np.concatenate([np.zeros(1, np.int32), actions + 1])


def prefix_attention(mask: Bool[Array, "b p"]) -> Bool[Array, "b p p"]:
    """Valid prefix tokens see each other."""
    return mask[:, :, None] & mask[:, None, :]


def suffix_attention(mask: Bool[Array, "b p"], config: Pi0Config) -> Bool[Array, "b s q"]:
    """Suffix tokens see the valid prefix, their own group and earlier groups."""
    groups = suffix_groups(config)
    own = jnp.asarray(groups[None, :] <= groups[:, None])
    shape = (mask.shape[0], groups.size)
    return jnp.concatenate(
        [
            jnp.broadcast_to(mask[:, None], (*shape, mask.shape[1])),
            jnp.broadcast_to(own[None], (*shape, groups.size)),
        ],
        axis=-1,
    )


def prefix_positions(mask: Bool[Array, "b p"]) -> Int[Array, "b p"]:
    """Masked tokens do not advance the position."""
    return jnp.cumsum(mask, axis=1) - 1


def suffix_positions(mask: Bool[Array, "b p"], config: Pi0Config) -> Int[Array, "b s"]:
    """Positions go on where the valid prefix ended."""
    return mask.sum(axis=1, keepdims=True) + jnp.arange(config.suffix_len)[None]
