"""The loss of one batch in each mode: `w_token * L_token + alpha * L_flow`.

| mode | the backbone learns from | the action expert learns from |
|---|---|---|
| `insulate` | tokens | flow, through keys and values that carry no gradient |
| `joint` | tokens and flow | flow |
| `flow_only` | flow (openpi's objective) | flow |
| `fast_only` | tokens | nothing |
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jax_bridge.ki import backbone, flow, sequence
from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import FlowDraws
from jax_bridge.pi0.config import Pi0Config

MODES = ("insulate", "joint", "flow_only", "fast_only")
TIME_BINS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised."""

    mode: str = "insulate"
    """A name of the table."""
    knowledge_insulation_lambda: float = 1.0
    """Weight of the token loss."""
    flow_weight: float = 1.0
    """Weight of the flow loss."""
    flow_samples: int = 1
    """(noise, time) pairs a sample, all against one context."""
    pad_dims: Literal["include", "mask"] = "include"
    """Whether dimensions that the robot has not are learnt (to be zero), as in openpi."""
    remat: bool = False
    """Compute each block again for the gradient: less memory, more time."""
    token_chunk: int | None = None
    """Samples whose logits exist at the same time; None for all."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, but got {self.mode!r}.")
        for name in ("knowledge_insulation_lambda", "flow_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        if self.flow_samples < 1 or (self.token_chunk is not None and self.token_chunk < 1):
            raise ValueError(
                f"`flow_samples` and `token_chunk` must be positive, but got {self.flow_samples} "
                f"and {self.token_chunk}."
            )

    @property
    def has_tokens(self) -> bool:
        """Whether the token loss counts."""
        return self.mode != "flow_only"

    @property
    def has_flow(self) -> bool:
        """Whether the flow loss counts."""
        return self.mode != "fast_only"


class Losses(NamedTuple):
    """Parts of the loss and what is logged; 0 where a part does not count."""

    total: Float32[Array, ""]
    tokens: Float32[Array, ""]
    """Mean over samples of the mean cross-entropy of their learnt tokens, in nats."""
    fast: Float32[Array, ""]
    """The same of FAST tokens alone."""
    text: Float32[Array, ""]
    """The same of text tokens alone."""
    flow: Float32[Array, ""]
    fast_accuracy: Float32[Array, ""]
    """Share of FAST tokens whose most probable id is right, given those before."""
    exact_chunks: Float32[Array, ""]
    """Share of samples with FAST targets all of whose tokens are right."""
    text_accuracy: Float32[Array, ""]
    """Share of text tokens whose most probable id is right, given those before."""
    exact_answers: Float32[Array, ""]
    """Share of samples with text targets all of whose tokens are right."""
    flow_sum_by_time: Float32[Array, " bins"]
    flow_count_by_time: Float32[Array, " bins"]


def losses_of(
    params: Mapping,
    batch: TrainingBatch,
    draws: FlowDraws,
    config: Pi0Config,
    objective: Objective,
) -> Losses:
    """All losses of a batch.

    Args:
        params: the model's parameters.
        batch: inputs and targets.
        draws: where on the flow the samples are looked at.
        config: the model's sizes.
        objective: what counts.
    """
    if not objective.has_tokens:
        batch = batch.without_targets()
    done = backbone.run_backbone(params, batch.observation, config, remat=objective.remat)
    tokens = _token_losses(params, batch, done.predicting, objective)
    context = backbone.insulated(done.context) if objective.mode == "insulate" else done.context
    if objective.has_flow:
        flows = _flow_losses(params, batch, context, draws, config, objective)
    else:
        flows = {"flow": jnp.zeros(()), "flow_sum_by_time": jnp.zeros(TIME_BINS),
                 "flow_count_by_time": jnp.zeros(TIME_BINS)}  # fmt: skip
    weighted = [
        objective.knowledge_insulation_lambda * tokens["tokens"],
        objective.flow_weight * flows["flow"],
    ]
    return Losses(total=weighted[0] + weighted[1], **tokens, **flows)


def _token_losses(
    params: Mapping, batch: TrainingBatch, predicting: Array, objective: Objective
) -> dict[str, Array]:
    targets = sequence.targets_of(batch.observation)
    scores = backbone.score_tokens(params, predicting, targets.tokens, chunk=objective.token_chunk)
    mask, size = targets.mask, targets.text.shape[1]
    is_text = jnp.arange(mask.shape[1]) < size
    parts = {"tokens": mask, "text": mask & is_text, "fast": mask & ~is_text}
    losses = {
        name: backbone.mean_over(
            backbone.mean_by_sample(scores.cross_entropy, part), part.any(axis=1)
        )
        for name, part in parts.items()
    }
    right = scores.best == targets.tokens
    for name, whole in (("fast", "exact_chunks"), ("text", "exact_answers")):
        part = parts[name]
        hits = jnp.where(part, right, False).sum()
        losses[f"{name}_accuracy"] = hits / jnp.maximum(part.sum(), 1)
        exact = (right | ~part).all(axis=1).astype(jnp.float32)
        losses[whole] = backbone.mean_over(exact, part.any(axis=1))
    return losses


def _flow_losses(
    params: Mapping,
    batch: TrainingBatch,
    context: backbone.PrefixPass,
    draws: FlowDraws,
    config: Pi0Config,
    objective: Objective,
) -> dict[str, Array]:
    velocity = flow.velocities(params, context, batch, draws, config, remat=objective.remat)
    errors = flow.squared_errors(velocity, batch, draws)
    means = flow.mean_flow_error(errors, batch, mask_dims=objective.pad_dims == "mask")
    has_actions = jnp.asarray(batch.action_mask, jnp.bool_)
    sums, counts = flow.by_time(jax.lax.stop_gradient(means), draws.time, has_actions, TIME_BINS)
    return {
        "flow": jax.vmap(backbone.mean_over, in_axes=(0, None))(means, has_actions).mean(),
        "flow_sum_by_time": sums,
        "flow_count_by_time": counts,
    }
