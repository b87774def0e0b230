"""The proof while it runs: how much of the flow loss reaches the backbone. It must be nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import draw_flow
from jax_bridge.ki.objective import Objective, losses_of
from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS
from jax_bridge.ki.train_step import Prepare, View, as_given, gradient_norms
from jax_bridge.pi0.config import Pi0Config


def make_flow_gradient(
    model: Pi0Config,
    objective: Objective,
    *,
    prepare: Prepare = as_given,
    view: View = lambda params: params,
) -> Callable[[Any, TrainingBatch, Any], Float32[Array, ""]]:
    """Norm of the flow loss's gradient on vision, embedder and backbone, by (params, batch, key).

    Exactly 0 in `insulate`; what `joint` and `flow_only` let through otherwise.
    """
    alone = dataclasses.replace(objective, knowledge_insulation_lambda=0.0)

    def measure(params: Any, batch: TrainingBatch, key: Any) -> Float32[Array, ""]:
        ready = prepare(key, batch)
        draws = draw_flow(key, objective.flow_samples, batch.size, model)

        def flow(params: Any) -> Float32[Array, ""]:
            return losses_of(view(params), ready, draws, model, alone).flow

        norms = gradient_norms(jax.grad(flow)(params))
        return jnp.sqrt(sum((norms[group] ** 2 for group in BACKBONE_GROUPS), jnp.zeros(())))

    return measure
