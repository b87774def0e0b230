"""Autoregressive decoding of FAST tokens against a cache: the backbone as a policy of its own.

Letters: b batch; p context tokens; f decoded tokens; e ids that end a sample; l layers; w width; v
vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.ki import sequence
from jax_bridge.ki.spoken_capture import SpokenPlan, write_step
from jax_bridge.pi0 import embedding, gemma
from jax_bridge.pi0.changing import ChangePlan, Map, make_change
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.gemma import Cache, Record
from jax_bridge.pi0.observation import Observation
from jax_bridge.pi0.recording import Region, find_regions, latents_of, make_recorder
from jax_bridge.pi0.sampler import run_prefix
from jax_bridge.vocabulary import SPOKEN_REGIONS

Changes = tuple[ChangePlan, Sequence[Map]]
"""Places, and what is done there."""


class Decoded(NamedTuple):
    """What the backbone says."""

    tokens: Int[Array, "b f"]
    """Ids of the embedding table, what ended them included; 0 behind it."""
    mask: Bool[Array, "b f"]
    """False behind what ended the sample."""
    latents: dict[str, Array] | None = None
    """By field name, batch first; None where nothing was to be captured."""


class _Watching(NamedTuple):
    """What happens to the blocks beside the plain pass."""

    record: Record | None = None
    """What is kept of a said token."""
    selected: tuple[int, ...] | None = None
    """In which layers."""
    changes: Changes | None = None
    """What becomes of said tokens."""


class _Decoding(NamedTuple):
    """What goes from token to token."""

    place: Int[Array, ""]
    cache: Cache
    """Context, then room for all decoded tokens."""
    logits: Float32[Array, "b v"]
    tokens: Int[Array, "b f"]
    mask: Bool[Array, "b f"]
    ended: Bool[Array, " b"]
    kept: dict[str, Array]
    """Latents of the steps so far."""


def decode_fast(
    params: Mapping,
    observation: Observation,
    config: Pi0Config,
    *,
    length: int,
    end: int | tuple[int, ...] | Int[Array, " e"],
    plan: SpokenPlan | None = None,
    changes: Changes | None = None,
) -> Decoded:
    """Takes the most probable token again and again.

    Args:
        params: the model's parameters.
        observation: images and prompt; its targets are not read.
        config: the model's sizes.
        length: most tokens.
        end: what ends a sample (the end mark, or `|` too); one that has said it says no more.
        plan: latents to keep. The tokens do not depend on it.
        changes: what becomes of the backbone's values, before they are kept.
    """
    plain = observation.without_targets()
    prefix = embedding.embed_prefix(params, plain, config)
    tokens = prefix.mask.shape[1]
    regions = {} if plan is None and changes is None else find_regions(plain, config)
    recorder = make_recorder(plan and plan.prefix, "vlm", regions, {"vlm": tokens})
    done = run_prefix(
        params, prefix, config, record=recorder, selected=plan and plan.prefix.layers,
        change=changes and make_change(*changes, "vlm", regions, tokens),
    )  # fmt: skip
    last = sequence.last_valid(prefix.mask)
    outputs = jnp.take_along_axis(done.hidden, last[:, None, None], axis=1)
    batch = prefix.mask.shape[0]
    room = ((0, 0), (0, 0), (0, length), (0, 0), (0, 0))
    start = _Decoding(
        place=jnp.zeros((), jnp.int32),
        cache=Cache(jnp.pad(done.cache.keys, room), jnp.pad(done.cache.values, room)),
        logits=_logits(params, outputs)[:, 0],
        tokens=jnp.zeros((batch, length), jnp.int32),
        mask=jnp.zeros((batch, length), jnp.bool_),
        ended=jnp.zeros(batch, jnp.bool_),
        kept={} if plan is None else plan.room(batch),
    )
    layers = gemma.stack_layers(params["PaliGemma"]["llm"], "", config.jax_dtype)
    ends = jnp.atleast_1d(jnp.asarray(end))
    watching = _Watching(changes=changes)
    if plan is not None:
        watching = _Watching(plan.record(regions, tokens), plan.prefix.layers, changes)

    def goes_on(now: _Decoding) -> Bool[Array, ""]:
        return (now.place < length) & ~now.ended.all()

    def step(now: _Decoding) -> _Decoding:
        return _step(params, layers, prefix.mask, now, config, ends, watching)

    said = jax.lax.while_loop(goes_on, step, start)
    if plan is None:
        return Decoded(said.tokens, said.mask)
    read = latents_of(plan.prefix, regions, (recorder, done.recorded), (None, None), {})
    return Decoded(said.tokens, said.mask, read | plan.latents(said.kept, said.mask))


def _step(
    params: Mapping,
    layers: Mapping,
    context: Bool[Array, "b p"],
    now: _Decoding,
    config: Pi0Config,
    ends: Int[Array, " e"],
    watching: _Watching,
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
    said = {region: Region(span=(0, 1), mask=~now.ended[:, None]) for region in SPOKEN_REGIONS}
    done = gemma.run_layers(
        layers,
        embedding.embed_tokens(params, token[:, None], config),
        visible,
        gemma.rope(positions, config.vlm.head_dim),
        config.vlm,
        cache=now.cache,
        record=watching.record,
        selected=watching.selected,
        change=watching.changes and make_change(*watching.changes, "vlm", said, 1),
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
        ended=now.ended | jnp.isin(token, ends),
        kept=write_step(now.kept, done.recorded, now.place, ~now.ended),
    )


def _logits(params: Mapping, hidden: Float[Array, "b t w"]) -> Float32[Array, "b t v"]:
    llm = params["PaliGemma"]["llm"]
    outputs = gemma.rms_norm(hidden, scale=llm["final_norm"]["scale"]).value
    table = llm["embedder"]["input_embedding"].astype(outputs.dtype)
    return jnp.einsum("btw,vw->btv", outputs, table, preferred_element_type=jnp.float32)
