"""The two Gemma experts of π0: blocks, their attention to a cached prefix, RMSNorm and adaRMS.

The prefix (images, prompt) runs through Expert 0 and leaves its keys and values behind; the
suffix (state, noisy actions) runs through Expert 1 and attends to that cache and to itself. As
no prefix token ever attends to the suffix, the two passes equal one pass over both.

Letters: b batch; t tokens of this pass; s tokens it attends to; p cached tokens; l layers;
w width; n key-value heads; g query heads a key-value head; d head width; m MLP width; c conditions
(1 or b).

Source: Beyer et al. 2024, arXiv:2407.07726; Black et al. 2024, arXiv:2410.24164; adaRMS:
Physical Intelligence 2025, arXiv:2504.16054.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jax_bridge.pi0.config import ExpertConfig
from jax_bridge.pi0.projection import project
from jax_bridge.pi0.scanning import scan_selected

EPSILON = 1e-6
MASKED_LOGIT = -2.3819763e38
ROPE_BASE = 10_000.0

Taps = dict[str, Array]
"""What a block computed, by site."""
Record = Callable[[Taps], Any]
"""Turns a block's taps into what is kept of them."""
Change = Callable[[Array, str, Array], Array]
"""(layer number, site, value) to the value that the rest of the block reads."""


class Cache(NamedTuple):
    """Keys (after RoPE) and values of every layer."""

    keys: Float[Array, "l b p n d"]
    values: Float[Array, "l b p n d"]


class Rope(NamedTuple):
    """Sine and cosine of every token's rotation."""

    sin: Float32[Array, "b t 1 d"]
    cos: Float32[Array, "b t 1 d"]


class Layers(NamedTuple):
    """What a pass over all blocks leaves."""

    hidden: Float[Array, "b t w"]
    """The residual stream after the last block, before the final norm."""
    cache: Cache
    """Keys and values of this pass's own tokens."""
    recorded: Any
    """Kept taps, layers first."""


def rope(positions: Int[Array, "b t"], head_dim: int) -> Rope:
    """Rotations of tokens at given positions."""
    fraction = 2.0 * jnp.arange(head_dim // 2, dtype=jnp.float32) / head_dim
    angle = positions[..., None, None].astype(jnp.float32) / ROPE_BASE**fraction
    return Rope(jnp.sin(angle), jnp.cos(angle))


def rotate(x: Float[Array, "b t h d"], turn: Rope) -> Float[Array, "b t h d"]:
    """Applies RoPE, in float32; the first half of a head pairs with the second."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * turn.cos - second * turn.sin, second * turn.cos + first * turn.sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def stack_layers(llm: Mapping, suffix: str, dtype: jnp.dtype) -> dict[str, Any]:
    """One expert's block weights, laid out for its scan over layers.

    Args:
        llm: The subtree `PaliGemma/llm`.
        suffix: `""` for Expert 0, `"_1"` for the action expert.
        dtype: Type in which to multiply.
    """
    attention, mlp = llm["layers"]["attn"], llm["layers"][f"mlp{suffix}"]
    query, key_value = attention[f"q_einsum{suffix}"]["w"], attention[f"kv_einsum{suffix}"]["w"]
    depth, _, width, _ = query.shape
    flat = [
        jnp.moveaxis(heads, 1, 2).reshape(depth, width, -1)
        for heads in (query, key_value[:, 0], key_value[:, 1])
    ]
    stacked: dict[str, Any] = {
        "qkv": jnp.concatenate(flat, axis=-1).astype(dtype),
        "out": attention[f"attn_vec_einsum{suffix}"]["w"].reshape(depth, -1, width).astype(dtype),
        "gating": mlp["gating_einsum"].astype(dtype),
        "linear": mlp["linear"].astype(dtype),
    }
    for name, norm in (("norm_attn", "pre_attention_norm"), ("norm_mlp", "pre_ffw_norm")):
        if "scale" in llm["layers"][f"{norm}{suffix}"]:
            stacked[name] = {"scale": llm["layers"][f"{norm}{suffix}"]["scale"]}
    return stacked


def modulation(dense: Mapping, condition: Float[Array, "c w"], dtype: jnp.dtype) -> Array:
    """Scale, shift and gate of adaRMS for every condition: [..., c, 3 w]."""
    kernel, bias = dense["kernel"].astype(dtype), dense["bias"].astype(dtype)
    return condition.astype(dtype) @ kernel + bias[..., None, :]


def layer_modulations(llm: Mapping, condition: Float[Array, "c w"], dtype: jnp.dtype) -> dict:
    """Modulations of both norms of every block of the action expert: [l, c, 3 w] each."""
    return {
        "norm_attn": modulation(llm["layers"]["pre_attention_norm_1"]["Dense_0"], condition, dtype),
        "norm_mlp": modulation(llm["layers"]["pre_ffw_norm_1"]["Dense_0"], condition, dtype),
    }


class Normed(NamedTuple):
    """A normalised residual stream."""

    value: Float[Array, "b t w"]
    rms: Float32[Array, "b t"]
    """`sqrt(mean(x²) + 1e-6)` of the input."""
    gate: Float[Array, "c 1 w"] | None
    """adaRMS's factor of the branch that follows; None for a plain norm."""


def rms_norm(
    x: Float[Array, "b t w"],
    scale: Float[Array, " w"] | None = None,
    modulated: Float[Array, "c v"] | None = None,
) -> Normed:
    """RMSNorm with a learnt scale, or adaRMS with a condition's scale, shift and gate."""
    wide = x.astype(jnp.float32)
    rms = _fixed(jnp.sqrt(jnp.mean(jnp.square(wide), axis=-1) + EPSILON))
    normed = wide * jnp.reciprocal(rms)[..., None]
    if modulated is None:
        assert scale is not None
        return Normed((normed * (1 + scale)).astype(x.dtype), rms, None)
    factor, shift, gate = jnp.split(modulated[:, None, :], 3, axis=-1)
    return Normed((normed * (1 + factor) + shift).astype(x.dtype), rms, gate)


class Attended(NamedTuple):
    """What attention gives."""

    mixed: Float[Array, "b t v"]
    probabilities: Float32[Array, "b n t g s"] | None
    """None where a fused kernel computed, which never writes them."""


Attend = Callable[..., Attended]
"""(query, keys, values, mask) to what attention gives: `attend`, or another way to compute it."""


def attend(
    query: Float[Array, "b t h d"],
    keys: Float[Array, "b s n d"],
    values: Float[Array, "b s n d"],
    mask: Bool[Array, "b t s"],
) -> Attended:
    """Grouped attention with float32 scores; a row with no visible key attends uniformly."""
    batch, tokens, heads, dim = query.shape
    groups = heads // keys.shape[2]
    # Tokens and groups share one axis, so that each key-value head is one matrix product.
    query = query.reshape(batch, tokens, -1, groups, dim).swapaxes(1, 2)
    query = query.reshape(batch, -1, tokens * groups, dim) * jnp.asarray(dim**-0.5, query.dtype)
    scores = jnp.einsum("bnqd,bsnd->bnqs", query, keys, preferred_element_type=jnp.float32)
    visible = jnp.repeat(mask, groups, axis=1)[:, None]
    scores = jnp.where(visible, scores, MASKED_LOGIT)
    weights = _fixed(jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))))
    total = weights.sum(axis=-1, keepdims=True)
    mixed = jnp.einsum("bnqs,bsnd->bnqd", weights.astype(query.dtype), values)
    mixed = (mixed / total).astype(query.dtype)
    mixed = mixed.reshape(batch, -1, tokens, groups, dim).swapaxes(1, 2)
    probabilities = (weights / total).reshape(batch, -1, tokens, groups, keys.shape[1])
    return Attended(mixed.reshape(batch, tokens, heads * dim), probabilities)


def _fixed(value: Array) -> Array:
    """Makes the compiler compute a tapped value alike whether or not anything captures it.

    Without it a captured value is fused differently, which moves actions by an ulp.
    """
    return jax.lax.optimization_barrier(value)


def gated_residual(x: Array, branch: Array, gate: Array | None) -> Array:
    """Adds a branch to the residual stream, times adaRMS's gate where there is one."""
    return _fixed(x + branch if gate is None else x + branch * gate)


def block(
    layer: Mapping,
    x: Float[Array, "b t w"],
    cached: tuple[Array, Array] | None,
    mask: Bool[Array, "b t s"],
    turn: Rope,
    expert: ExpertConfig,
    change: Callable[[str, Array], Array] = lambda site, value: value,
    *,
    attention: Attend | None = None,
) -> tuple[Float[Array, "b t w"], tuple[Array, Array], Taps]:
    """One transformer block of one expert.

    Args:
        layer: This layer's slice of `stack_layers` (and of `layer_modulations`).
        x: Residual stream.
        cached: This layer's keys and values of the prefix; they stand before the block's own.
        mask: Which tokens each token sees, cached ones first.
        turn: Rotations of this pass's tokens.
        expert: Sizes.
        change: What becomes of a site's value.
        attention: What computes attention; None: `attend`.

    Returns:
        The residual stream, the block's own keys and values, and its taps by site. The
        probabilities are among them where `attention` gives them.
    """
    pre_attn = _norm(layer, "norm_attn", x)
    query, key, value = _project(layer["qkv"], pre_attn.value, expert)
    query, key = rotate(query, turn), rotate(key, turn)
    keys, values = (key, value) if cached is None else _append(cached, (key, value))
    attended = (attention or attend)(query, keys, values, mask)
    branch = project(attended.mixed, layer["out"])
    after_attn = change("post_attn_embedding", gated_residual(x, branch, pre_attn.gate))
    pre_mlp = _norm(layer, "norm_mlp", after_attn)
    gating = jax.nn.gelu(project(pre_mlp.value, layer["gating"][0]), approximate=True)
    activation = _fixed(gating * project(pre_mlp.value, layer["gating"][1]))
    activation = change("mlp_activation", activation)
    hidden = gated_residual(after_attn, project(activation, layer["linear"]), pre_mlp.gate)
    hidden = change("hidden_states", hidden)
    taps = {
        "hidden_states": hidden,
        "post_attn_embedding": after_attn,
        "mlp_activation": activation,
        "pre_attn_norm_scale": pre_attn.rms,
        "pre_mlp_norm_scale": pre_mlp.rms,
    }
    if attended.probabilities is not None:
        taps["attention"] = attended.probabilities
    return hidden, (key, value), taps


def _norm(layer: Mapping, name: str, x: Array) -> Normed:
    """The plain or the adaptive norm, whichever the layer has."""
    if isinstance(layer[name], Mapping):
        return rms_norm(x, scale=layer[name]["scale"])
    return rms_norm(x, modulated=layer[name])


def _project(weight: Array, x: Array, expert: ExpertConfig) -> tuple[Array, Array, Array]:
    """Queries, keys and values, with their heads on an axis of their own."""
    heads = (expert.heads, expert.kv_heads, expert.kv_heads)
    ends = [expert.heads * expert.head_dim, (expert.heads + expert.kv_heads) * expert.head_dim]
    parts = jnp.split(project(x, weight), ends, axis=-1)
    query, key, value = (
        part.reshape(*x.shape[:2], n, expert.head_dim) for part, n in zip(parts, heads, strict=True)
    )
    return query, key, value


def _append(cached: tuple[Array, Array], own: tuple[Array, Array]) -> tuple[Array, Array]:
    """Puts a block's own keys and values behind the prefix's."""
    keys, values = (jnp.concatenate(pair, axis=1) for pair in zip(cached, own, strict=True))
    return keys, values


def run_layers(
    layers: Mapping,
    x: Float[Array, "b t w"],
    mask: Bool[Array, "b t s"],
    turn: Rope,
    expert: ExpertConfig,
    *,
    cache: Cache | None = None,
    record: Record | None = None,
    selected: tuple[int, ...] | None = None,
    remat: bool = False,
    change: Change | None = None,
    attention: Attend | None = None,
) -> Layers:
    """All blocks of one expert, in one scan.

    Args:
        layers: `stack_layers`, with `layer_modulations` for π0.5's action expert.
        x: Embedded tokens.
        mask: Which tokens each token sees, cached ones first.
        turn: Rotations of the tokens.
        expert: Sizes.
        cache: Keys and values of the prefix.
        record: What to keep of each block's taps; None keeps nothing.
        selected: Layers to keep it of; None: of all.
        remat: Compute each block again for the gradient, which saves memory.
        change: What becomes of the sites' values; None leaves them.
        attention: What computes attention; None: `attend`.
    """
    once = functools.partial(block, attention=attention)
    once = jax.checkpoint(once, static_argnums=5) if remat else once

    def body(x: Array, scanned: tuple) -> tuple[Array, tuple[Array, Array], Any]:
        layer, cached, number = scanned
        own_change = () if change is None else (functools.partial(change, number),)
        x, own, taps = once(layer, x, cached, mask, turn, expert, *own_change)
        return x, own, None if record is None else record(taps)

    numbers = None if change is None else jnp.arange(layers["qkv"].shape[0])
    hidden, (keys, values), recorded = scan_selected(
        body, x, (layers, None if cache is None else tuple(cache), numbers), selected
    )
    return Layers(hidden, Cache(keys, values), recorded)
