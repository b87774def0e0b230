"""The forward passes of π0: prefix, one flow step, the loss and the sampler.

Letters: b batch; p prefix tokens; h action horizon; a action dimensions; w width; n steps.

Source: Lipman et al. 2023, arXiv:2210.02747 (flow matching); Black et al. 2024, arXiv:2410.24164.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from jax_bridge.pi0 import embedding, gemma
from jax_bridge.pi0.capture_plan import CapturePlan, flow_times
from jax_bridge.pi0.changing import ChangePlan, Map, make_change
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.embedding import Prefix, TimeEmbedding
from jax_bridge.pi0.gemma import Attend, Cache, Change, Record, Rope
from jax_bridge.pi0.observation import Observation
from jax_bridge.pi0.recording import Recorder, find_regions, latents_of, make_recorder
from jax_bridge.pi0.scanning import scan_selected


class PrefixPass(NamedTuple):
    """What Expert 0 leaves for the action expert."""

    hidden: Float[Array, "b p w"]
    """After the last block, before the final norm."""
    cache: Cache
    mask: Bool[Array, "b p"]
    recorded: Any


class Suffix(NamedTuple):
    """Everything of the action expert that is the same in every flow step."""

    layers: Mapping[str, Any]
    cache: Cache
    attention: Bool[Array, "b s q"]
    turn: Rope


class Conditions(NamedTuple):
    """What the times come to, one row a time (or a batch item)."""

    embedded: TimeEmbedding
    layers: Mapping[str, Array]
    """adaRMS's modulations of every block: [l, c, 3 w]; empty in π0."""
    final: Array | None
    """The same of the final norm: [c, 3 w]."""


def run_prefix(
    params: Mapping,
    prefix: Prefix,
    config: Pi0Config,
    *,
    record: Record | None = None,
    selected: tuple[int, ...] | None = None,
    change: Change | None = None,
    attention: Attend | None = None,
) -> PrefixPass:
    """Runs images and prompt through Expert 0."""
    layers = gemma.stack_layers(params["PaliGemma"]["llm"], "", config.jax_dtype)
    turn = gemma.rope(embedding.prefix_positions(prefix.mask), config.vlm.head_dim)
    done = gemma.run_layers(
        layers, prefix.tokens, embedding.prefix_attention(prefix.mask), turn, config.vlm,
        record=record, selected=selected, change=change, attention=attention,
    )  # fmt: skip
    return PrefixPass(done.hidden, done.cache, prefix.mask, done.recorded)


def prepare_suffix(params: Mapping, prefix: PrefixPass, config: Pi0Config) -> Suffix:
    """Computes once what every flow step needs."""
    positions = embedding.suffix_positions(prefix.mask, config)
    return Suffix(
        layers=gemma.stack_layers(params["PaliGemma"]["llm"], "_1", config.jax_dtype),
        cache=prefix.cache,
        attention=embedding.suffix_attention(prefix.mask, config),
        turn=gemma.rope(positions, config.action.head_dim),
    )


def prepare_conditions(
    params: Mapping, time: Float32[Array, " c"], config: Pi0Config
) -> Conditions:
    """Embeds times and, in π0.5, maps them to every norm's modulation."""
    embedded = embedding.embed_time(params, time, config)
    if embedded.condition is None:
        return Conditions(embedded, {}, None)
    llm, dtype = params["PaliGemma"]["llm"], config.jax_dtype
    layers = gemma.layer_modulations(llm, embedded.condition, dtype)
    final = gemma.modulation(llm["final_norm_1"]["Dense_0"], embedded.condition, dtype)
    return Conditions(embedded, layers, final)


class Velocity(NamedTuple):
    """What one evaluation of the action expert gives."""

    value: Float[Array, "b h a"]
    hidden: Float[Array, "b s w"]
    """After the last block, before the final norm."""
    recorded: Any


def velocity(
    params: Mapping,
    suffix: Suffix,
    state: Float[Array, "b a"],
    noisy_actions: Float[Array, "b h a"],
    conditions: Conditions,
    config: Pi0Config,
    *,
    record: Record | None = None,
    selected: tuple[int, ...] | None = None,
    remat: bool = False,
    change: Change | None = None,
    attention: Attend | None = None,
) -> Velocity:
    """Evaluates the action expert at one time."""
    tokens = embedding.embed_suffix(params, state, noisy_actions, conditions.embedded, config)
    done = gemma.run_layers(
        {**suffix.layers, **conditions.layers},
        tokens.astype(config.jax_dtype),
        suffix.attention,
        suffix.turn,
        config.action,
        cache=suffix.cache,
        record=record,
        selected=selected,
        remat=remat,
        change=change,
        attention=attention,
    )
    scale = params["PaliGemma"]["llm"]["final_norm_1"].get("scale")
    normed = gemma.rms_norm(done.hidden, scale=scale, modulated=conditions.final)
    actions = normed.value[:, -config.action_horizon :]
    value = embedding.linear(params["action_out_proj"], actions).astype(config.jax_dtype)
    return Velocity(value, done.hidden, done.recorded)


def flow_loss(
    params: Mapping,
    observation: Observation,
    actions: Float[Array, "b h a"],
    noise: Float[Array, "b h a"],
    time: Float[Array, " b"],
    config: Pi0Config,
) -> Float[Array, "b h"]:
    """Mean squared error of the velocity, a value a step of the chunk."""
    noisy = time[:, None, None] * noise + (1 - time[:, None, None]) * actions
    prefix = run_prefix(params, embedding.embed_prefix(params, observation, config), config)
    suffix = prepare_suffix(params, prefix, config)
    conditions = prepare_conditions(params, time, config)
    state = jnp.asarray(observation.state)
    predicted = velocity(params, suffix, state, noisy, conditions, config).value
    return jnp.mean(jnp.square(predicted - (noise - actions)), axis=-1)


def sample_actions(
    params: Mapping,
    observation: Observation,
    noise: Float32[Array, "b h a"],
    config: Pi0Config,
    num_steps: int,
    plan: CapturePlan | None,
    changes: tuple[ChangePlan, Sequence[Map]] | None = None,
    attention: Attend | None = None,
) -> tuple[Float32[Array, "b h a"], dict[str, Array]]:
    """Integrates the velocity from noise (time 1) to actions (time 0), recording on the way."""
    embedded = embedding.embed_prefix(params, observation, config, attention=attention)
    regions = find_regions(observation, config)
    tokens = {"vlm": embedded.mask.shape[1], "action": config.suffix_len}
    vlm, action = (make_recorder(plan, expert, regions, tokens) for expert in tokens)
    layers = None if plan is None else plan.layers

    def change_of(expert: str, step: Any = 0) -> Change | None:
        if changes is None:
            return None
        return make_change(*changes, expert, regions, tokens[expert], step)

    prefix = run_prefix(
        params, embedded, config, record=vlm, selected=layers, change=change_of("vlm"),
        attention=attention,
    )  # fmt: skip
    suffix = prepare_suffix(params, prefix, config)
    keep, state = _kept_of_a_step(plan, action), jnp.asarray(observation.state)

    def step(x_t: Array, scanned: tuple[Conditions, Any]) -> tuple[Array, None, Any]:
        condition, number = scanned
        now = velocity(
            params, suffix, state, x_t, condition, config,
            record=action, selected=layers, change=change_of("action", number),
            attention=attention,
        )  # fmt: skip
        return x_t + (-1.0 / num_steps) * now.value, None, keep(x_t, now)

    numbers = None if changes is None else jnp.arange(num_steps)
    x_0, _, kept = scan_selected(
        step, noise, (_condition_of_steps(params, config, num_steps), numbers), plan and plan.steps
    )
    if plan is None:
        return x_0, {}
    return x_0, latents_of(plan, regions, (vlm, prefix.recorded), (action, kept["blocks"]), kept)


def _condition_of_steps(params: Mapping, config: Pi0Config, num_steps: int) -> Conditions:
    """Conditions of all flow steps, steps first, each with one row for the whole batch."""
    times = jnp.asarray(flow_times(num_steps))
    conditions = prepare_conditions(params, times, config)
    layers = {name: jnp.moveaxis(m, 1, 0)[:, :, None] for name, m in conditions.layers.items()}
    embedded, final = jax.tree.map(lambda m: m[:, None], (conditions.embedded, conditions.final))
    return Conditions(embedded, layers, final)


def _kept_of_a_step(plan: CapturePlan | None, action: Recorder | None) -> Any:
    """What to keep of one flow step, as a function of its state and velocity."""
    sites = () if plan is None else [f.site for f in plan.of("action", sampler=True)]

    def keep(x_t: Array, now: Velocity) -> dict[str, Any]:
        values = {"x_t": x_t, "velocity": now.value}
        kept: dict[str, Any] = {site: values[site] for site in sites}
        return {**kept, "blocks": now.recorded if action else None}

    return keep
