"""Pass 2: the action expert's flow-matching loss against the backbone's context.

Letters: b batch; k (noise, time) pairs a sample; h action horizon; a action dimensions.

Source: Black et al. 2024, arXiv:2410.24164 (the distribution of the time), and openpi.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.pi0 import sampler
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.sampler import PrefixPass

BETA_A, BETA_B = 1.5, 1.0
SMALLEST_TIME = 0.001


class FlowDraws(NamedTuple):
    """Where on the flow each sample is looked at."""

    noise: Float32[Array, "k b h a"]
    time: Float32[Array, "k b"]
    """In [0.001, 1]; 1 is noise."""


def draw_flow(key: Any, samples: int, batch: int, config: Pi0Config) -> FlowDraws:
    """Draws noise and times: Beta(1.5, 1), squeezed into [0.001, 1]."""
    for_noise, for_time = jax.random.split(key)
    shape = (samples, batch, config.action_horizon, config.action_dim)
    beta = jax.random.beta(for_time, BETA_A, BETA_B, (samples, batch))
    time = beta * (1 - SMALLEST_TIME) + SMALLEST_TIME
    return FlowDraws(jax.random.normal(for_noise, shape), time)


def velocities(
    params: Mapping,
    context: PrefixPass,
    batch: TrainingBatch,
    draws: FlowDraws,
    config: Pi0Config,
    *,
    remat: bool = False,
) -> Float32[Array, "k b h a"]:
    """The velocity at every draw; the context is computed once for all of them."""
    suffix = sampler.prepare_suffix(params, context, config)
    state, actions = jnp.asarray(batch.observation.state), jnp.asarray(batch.actions)

    def one(noise: Float32[Array, "b h a"], time: Float32[Array, " b"]) -> Float32[Array, "b h a"]:
        far = time[:, None, None]
        noisy = far * noise + (1 - far) * actions
        conditions = sampler.prepare_conditions(params, time, config)
        now = sampler.velocity(params, suffix, state, noisy, conditions, config, remat=remat)
        return now.value.astype(jnp.float32)

    return jax.vmap(one)(draws.noise, draws.time)


def squared_errors(
    velocity: Float32[Array, "k b h a"], batch: TrainingBatch, draws: FlowDraws
) -> Float32[Array, "k b h a"]:
    """Against the flow's own velocity, noise minus action."""
    return jnp.square(velocity - (draws.noise - jnp.asarray(batch.actions)))


def mean_flow_error(
    errors: Float32[Array, "k b h a"], batch: TrainingBatch, *, mask_dims: bool
) -> Float32[Array, "k b"]:
    """Each sample's mean over its real steps, and over all dimensions or the robot's alone."""
    steps: Bool[Array, "b h 1"] = ~jnp.asarray(batch.action_is_pad, jnp.bool_)[:, :, None]
    dims = jnp.asarray(batch.action_dims, jnp.bool_)
    weights = jnp.broadcast_to(steps & (dims if mask_dims else True), errors.shape[1:])
    weights = weights.astype(jnp.float32)
    return (errors * weights).sum(axis=(2, 3)) / jnp.maximum(weights.sum(axis=(1, 2)), 1.0)


def by_time(
    errors: Float32[Array, "k b"], time: Float[Array, "k b"], mask: Bool[Array, " b"], bins: int
) -> tuple[Float32[Array, " bins"], Float32[Array, " bins"]]:
    """Sums and counts of the errors in equal bins of the time."""
    place = jnp.clip((time * bins).astype(jnp.int32), 0, bins - 1)
    weights = jnp.broadcast_to(mask, errors.shape).astype(jnp.float32)
    sums = jnp.zeros(bins).at[place].add(jnp.where(weights > 0, errors, 0.0))
    return sums, jnp.zeros(bins).at[place].add(weights)
