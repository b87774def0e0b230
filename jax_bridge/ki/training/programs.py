"""The compiled programs of a run, and its state on the devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import draw_flow
from jax_bridge.ki.objective import Losses, losses_of
from jax_bridge.ki.optimiser import make_optimiser
from jax_bridge.ki.sharding import state_shardings
from jax_bridge.ki.train_step import (
    Prepare,
    TokenCounts,
    TrainState,
    count_tokens,
    initial_state,
    make_train_step,
)
from jax_bridge.ki.training.insulation import make_flow_gradient
from jax_bridge.ki.training.lora import (
    add_lora,
    merge_lora,
    what_the_model_reads,
    with_lora_frozen,
)
from jax_bridge.ki.training.run_config import RunConfig, TrainSettings
from jax_bridge.pi0.parameters import Params, param_shapes, unflatten


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """What a run calls; each is compiled once."""

    shapes: TrainState
    """Shape, type and place of every leaf of the state."""
    step: Callable[..., Any]
    """(state, batch, key) to (state, report); the state is given away."""
    start: Callable[[Params], TrainState]
    """The state before the first step, from parameters on the host."""
    losses: Callable[[Any, TrainingBatch, Any], tuple[Losses, TokenCounts]]
    """Losses of (parameters, held-out batch, key), without augmentation, and what it holds."""
    flow_gradient: Callable[[Any, TrainingBatch, Any], Any]
    """Norm of the flow loss's gradient on the backbone."""
    plain: Callable[[Any], Params]
    """Parameters in openpi's layout."""


def build_programs(settings: TrainSettings, mesh: Mesh, prepare: Prepare) -> Programs:
    """The programs of these settings.

    Raises:
        ValueError: if `freeze`, `rank` or `pattern` do not fit the parameters.
    """
    # How long a run is and what it says decides no program.
    plain = dataclasses.replace(settings, run=RunConfig(seed=settings.run.seed), weights="")
    return _programs(plain, mesh, prepare)


@functools.lru_cache(maxsize=8)
def _programs(settings: TrainSettings, mesh: Mesh, prepare: Prepare) -> Programs:
    model, objective, lora = settings.model, settings.objective, settings.lora
    given = with_lora_frozen(settings.optimiser, lora)
    shapes = parameter_shapes(settings)
    optimiser = make_optimiser(given, shapes)
    abstract = jax.eval_shape(lambda p: initial_state(p, optimiser, settings.step), shapes)
    places = state_shardings(abstract, mesh)

    def view(params: Any) -> Any:
        return what_the_model_reads(params, settings.optimiser, lora)

    def held_out(params: Any, batch: TrainingBatch, key: Any) -> tuple[Losses, TokenCounts]:
        ready = prepare(None, batch)
        draws = draw_flow(key, objective.flow_samples, batch.size, model)
        losses = losses_of(view(params), ready, draws, model, objective)
        return losses, count_tokens(ready, model, objective)

    step = make_train_step(model, objective, optimiser, settings.step, prepare=prepare, view=view)
    gradient = make_flow_gradient(model, objective, prepare=prepare, view=view)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return Programs(
        shapes=jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract, places,
        ),
        step=jax.jit(step, donate_argnums=0, out_shardings=(places, everywhere)),
        start=functools.partial(_start, settings, optimiser, places),
        losses=jax.jit(held_out, out_shardings=everywhere),
        flow_gradient=jax.jit(gradient, out_shardings=everywhere),
        plain=jax.jit(lambda params: merge_lora(params, lora)),
    )  # fmt: skip


def parameter_shapes(settings: TrainSettings) -> Any:
    """The tree of a state's parameters, without numbers."""
    shapes = param_shapes(settings.model)
    flat = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()}
    tree = add_lora(unflatten(flat), settings.lora, 0)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), tree)


def _start(
    settings: TrainSettings, optimiser: optax.GradientTransformation, places: Any, params: Params
) -> TrainState:
    whole = add_lora(params, settings.lora, settings.run.seed)
    laid = jax.tree.map(_lay_out, whole, places.params)

    def make(params: Any) -> TrainState:
        state = initial_state(params, optimiser, settings.step)
        if state.average is None:
            return state
        # The step gives the state away: no two leaves of it may be one buffer.
        return state._replace(average=jax.tree.map(jnp.copy, state.average))

    return jax.jit(make, out_shardings=places)(laid)


def _lay_out(leaf: Any, place: NamedSharding) -> jax.Array:
    """One leaf, whole on this host, as an array over all devices."""
    held = np.asarray(leaf, np.float32)
    return jax.make_array_from_callback(held.shape, place, lambda part: held[part])
