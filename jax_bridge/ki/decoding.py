"""Autoregressive decoding of FAST tokens against a cache: the backbone as a policy of its own.

Letters: b batch; p context tokens; f decoded tokens; l layers; w width; v vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.ki import sequence
from jax_bridge.ki.backbone import run_backbone
from jax_bridge.pi0 import embedding, gemma
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Cache
from jax_bridge.pi0.observation import Observation


class Decoded(NamedTuple):
    """What the backbone says."""

    tokens: Int[Array, "b f"]
    """Ids of the embedding table, the end mark included; 0 behind it."""
    mask: Bool[Array, "b f"]
    """False behind the end mark."""


class _Decoding(NamedTuple):
    """What goes from token to token."""

    place: Int[Array, ""]
    cache: Cache
    """Context, then room for all decoded tokens."""
    logits: Float32[Array, "b v"]
    tokens: Int[Array, "b f"]
    mask: Bool[Array, "b f"]
    ended: Bool[Array, " b"]


def decode_fast(
    params: Mapping, observation: Observation, config: Pi0Config, *, length: int, end: int
) -> Decoded:
    """Takes the most probable token again and again.

    Args:
        params: the model's parameters.
        observation: images and prompt; its targets are not read.
        config: the model's sizes.
        length: most tokens.
        end: the end mark; a sample that has said it says no more.
    """
    plain = observation.without_targets()
    prefix = embedding.embed_prefix(params, plain, config)
    done = run_backbone(params, plain, config)
    last = sequence.last_valid(prefix.mask)
    outputs = jnp.take_along_axis(done.context.hidden, last[:, None, None], axis=1)
    batch = prefix.mask.shape[0]
    room = ((0, 0), (0, 0), (0, length), (0, 0), (0, 0))
    start = _Decoding(
        place=jnp.zeros((), jnp.int32),
        cache=Cache(
            jnp.pad(done.context.cache.keys, room), jnp.pad(done.context.cache.values, room)
        ),
        logits=_logits(params, outputs)[:, 0],
        tokens=jnp.zeros((batch, length), jnp.int32),
        mask=jnp.zeros((batch, length), jnp.bool_),
        ended=jnp.zeros(batch, jnp.bool_),
    )
    layers = gemma.stack_layers(params["PaliGemma"]["llm"], "", config.jax_dtype)

    def goes_on(now: _Decoding) -> Bool[Array, ""]:
        return (now.place < length) & ~now.ended.all()

    def step(now: _Decoding) -> _Decoding:
        return _step(params, layers, prefix.mask, now, config, end)

    said = jax.lax.while_loop(goes_on, step, start)
    return Decoded(said.tokens, said.mask)


def _step(
    params: Mapping,
    layers: Mapping,
    context: Bool[Array, "b p"],
    now: _Decoding,
    config: Pi0Config,
    end: int,
) -> _Decoding:
    """Takes one token and runs it through the backbone."""
    token = jnp.where(now.ended, 0, jnp.argmax(now.logits, axis=-1).astype(jnp.int32))
    tokens = now.tokens.at[:, now.place].set(token)
    mask = now.mask.at[:, now.place].set(~now.ended)
    # A token sees the context, the tokens decoded before it, and itself (the last place).
    earlier = mask & (jnp.arange(mask.shape[1]) < now.place)
    itself = jnp.ones_like(context[:, :1])
    visible = jnp.concatenate([context, earlier, itself], axis=1)[:, None, :]
    positions = context.sum(axis=1, keepdims=True) + now.place
    done = gemma.run_layers(
        layers,
        embedding.embed_tokens(params, token[:, None], config),
        visible,
        gemma.rope(positions, config.vlm.head_dim),
        config.vlm,
        cache=now.cache,
    )
    place = context.shape[1] + now.place
    cache = Cache(
        *(
            jax.lax.dynamic_update_slice_in_dim(room, own, place, axis=2)
            for room, own in zip(now.cache, done.cache, strict=True)
        )
    )
    return _Decoding(
        place=now.place + 1,
        cache=cache,
        logits=_logits(params, done.hidden)[:, 0],
        tokens=tokens,
        mask=mask,
        ended=now.ended | (token == end),
    )


def _logits(params: Mapping, hidden: Float[Array, "b t w"]) -> Float32[Array, "b t v"]:
    llm = params["PaliGemma"]["llm"]
    outputs = gemma.rms_norm(hidden, scale=llm["final_norm"]["scale"]).value
    table = llm["embedder"]["input_embedding"].astype(outputs.dtype)
    return jnp.einsum("btw,vw->btv", outputs, table, preferred_element_type=jnp.float32)
