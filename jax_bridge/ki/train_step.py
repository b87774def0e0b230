"""One step of training: gradient, update, moving average; pure, and compiled once.

Letters: b batch; k micro-batches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import FlowDraws, draw_flow
from jax_bridge.ki.objective import Losses, Objective, losses_of
from jax_bridge.ki.optimiser import path_of
from jax_bridge.ki.parameter_groups import GROUPS, group_of
from jax_bridge.pi0.config import Pi0Config

AUGMENTATION = 0x617567
"""Sets the key of augmentation apart from those of noise and time, which are its neighbours."""


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: Int[Array, ""]
    params: Any
    """Float32, whatever the type of the activations."""
    optimiser: Any
    average: Any
    """Exponential moving average of the parameters; None without one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What a step does besides the objective and the optimiser."""

    ema_decay: float | None = 0.99
    """Of the moving average of the parameters; None keeps none."""
    micro_batches: int = 1
    """Parts that a batch is cut into, to save memory; each part's loss counts alike."""

    def __post_init__(self) -> None:
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must lie in (0, 1), but got {self.ema_decay}.")
        if self.micro_batches < 1:
            raise ValueError(f"`micro_batches` must be positive, but got {self.micro_batches}.")


class TokenCounts(NamedTuple):
    """What a batch held."""

    tokens: Int[Array, ""]
    """Valid tokens of both passes: images, prompts, targets, states, actions."""
    fast_samples: Int[Array, ""]
    """Samples with FAST targets."""
    fast_tokens: Int[Array, ""]
    longest_fast: Int[Array, ""]
    """Most FAST tokens of one sample, `|` and the end mark included."""
    text_samples: Int[Array, ""]
    """Samples with text targets."""
    action_samples: Int[Array, ""]
    """Samples with actions."""


class StepReport(NamedTuple):
    """What a step tells."""

    losses: Losses
    gradient_norm: dict[str, Float32[Array, ""]]
    """By group: vision, embedder, backbone, expert."""
    counts: TokenCounts


Prepare = Callable[[Any, TrainingBatch], TrainingBatch]
"""What becomes of a batch on the device, by (key, batch): grey levels to numbers, augmentation. No
key: no augmentation."""
View = Callable[[Any], Any]
"""The parameters as the model reads them, from those of a state."""


def as_given(_: Any, batch: TrainingBatch) -> TrainingBatch:
    """The `Prepare` that changes nothing."""
    return batch


def initial_state(
    params: Any, optimiser: optax.GradientTransformation, config: StepConfig
) -> TrainState:
    """The state before the first step."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    average = None if config.ema_decay is None else params
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), average)


def make_train_step(
    model: Pi0Config,
    objective: Objective,
    optimiser: optax.GradientTransformation,
    config: StepConfig,
    *,
    prepare: Prepare = as_given,
    view: View = lambda params: params,
) -> Callable[[TrainState, TrainingBatch, Any], tuple[TrainState, StepReport]]:
    """The step as a pure function of state, batch and key; the caller compiles it.

    The draws of noise, time and augmentation are a function of the key and the step alone, so that
    a run that goes on draws what an uninterrupted one would have drawn.

    Args:
        model: the model's sizes.
        objective: what is minimised.
        optimiser: how parameters move.
        config: what else happens.
        prepare: what becomes of a batch first.
        view: what the model reads of the parameters: nothing of a frozen leaf's gradient, say.
    """

    def step(state: TrainState, batch: TrainingBatch, key: Any) -> tuple[TrainState, StepReport]:
        own = jax.random.fold_in(key, state.step)
        batch = prepare(jax.random.fold_in(own, AUGMENTATION), batch)
        draws = draw_flow(own, objective.flow_samples, batch.size, model)
        find = _finder(model, objective, view)
        gradient, losses = _gradient(find, state.params, batch, draws, config.micro_batches)
        updates, moved = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        average = _averaged(state.average, params, config.ema_decay)
        report = StepReport(losses, gradient_norms(gradient), count_tokens(batch, model, objective))
        return TrainState(state.step + 1, params, moved, average), report

    return step


def _finder(model: Pi0Config, objective: Objective, view: View) -> Callable[..., Any]:
    """Gradient and losses of (params, batch, draws)."""

    def loss(params: Mapping, batch: TrainingBatch, draws: FlowDraws) -> tuple[Array, Losses]:
        losses = losses_of(view(params), batch, draws, model, objective)
        return losses.total, losses

    return jax.grad(loss, has_aux=True)


def _gradient(
    find: Callable[..., Any], params: Any, batch: TrainingBatch, draws: FlowDraws, parts: int
) -> tuple[Any, Losses]:
    """Gradient and losses, averaged over micro-batches."""
    if parts == 1:
        return find(params, batch, draws)
    if batch.size % parts:
        raise ValueError(f"`micro_batches` must divide the batch of {batch.size}, but got {parts}.")
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), _rows(batch))
    by_part = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 1, 0), draws
    )

    def add(total: Any, scanned: tuple[dict[str, Any], FlowDraws]) -> tuple[Any, None]:
        rows, some = scanned
        found = find(params, TrainingBatch(**rows, action_dims=batch.action_dims), some)
        return jax.tree.map(jnp.add, total, found), None

    shapes = jax.eval_shape(find, params, batch, draws)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (cut, by_part))
    return jax.tree.map(lambda x: x / parts, total)


def _rows(batch: TrainingBatch) -> dict[str, Any]:
    """The parts of a batch that have a row a sample."""
    names = [field.name for field in dataclasses.fields(batch) if field.name != "action_dims"]
    return jax.tree.map(jnp.asarray, {name: getattr(batch, name) for name in names})


def _averaged(average: Any, params: Any, decay: float | None) -> Any:
    if decay is None:
        return None
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)


def gradient_norms(gradient: Any) -> dict[str, Float32[Array, ""]]:
    """Norm of each group's gradient, before clipping."""
    squares = {group: jnp.zeros(()) for group in GROUPS}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        group = group_of(path_of(path))
        squares[group] = squares[group] + jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    return {group: jnp.sqrt(total) for group, total in squares.items()}


def count_tokens(batch: TrainingBatch, model: Pi0Config, objective: Objective) -> TokenCounts:
    """Valid tokens of a batch, as the objective reads it."""
    observation = batch.observation
    masks = [jnp.asarray(observation.tokenized_prompt_mask)]
    fast = text = jnp.zeros((batch.size, 0), jnp.bool_)
    if objective.has_tokens and observation.fast_action_mask is not None:
        fast = jnp.asarray(observation.fast_action_mask)
    if objective.has_tokens and observation.text_target_mask is not None:
        text = jnp.asarray(observation.text_target_mask)
    cameras = sum(jnp.asarray(mask).sum() for mask in observation.image_masks.values())
    total = sum(mask.sum() for mask in (*masks, text, fast)) + cameras * model.vision.tokens
    if objective.has_flow:
        total += batch.size * objective.flow_samples * model.suffix_len
    length = fast.sum(axis=1)
    return TokenCounts(
        tokens=jnp.asarray(total, jnp.int32),
        fast_samples=(length > 0).sum(),
        fast_tokens=length.sum(),
        longest_fast=length.max(initial=0),
        text_samples=text.any(axis=1).sum(),
        action_samples=jnp.asarray(batch.action_mask, jnp.bool_).sum(),
    )
