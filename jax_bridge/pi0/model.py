"""π0 and π0.5: the public door.

Letters: b batch; h action horizon; a action dimensions.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jax_bridge.interventions import PlacedChange
from jax_bridge.pi0 import sampler
from jax_bridge.pi0.capture import CaptureSpec
from jax_bridge.pi0.capture_plan import CapturePlan
from jax_bridge.pi0.changing import ChangePlan, Map, plan_changes
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.fused_attention import choose_attention
from jax_bridge.pi0.gemma import Attend
from jax_bridge.pi0.observation import ArrayLike, Observation, check_shape
from jax_bridge.pi0.parameters import Params, check_params, init_params

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Pi0:
    """A π0 or π0.5 policy: pure functions of parameters, compiled once a config and spec."""

    config: Pi0Config
    attention: str = "auto"
    """How attention is computed: `plain`, `fused` (by the backend's kernel), or `auto`: fused where
    the backend has a kernel for this model (a GPU, in bfloat16)."""

    def init(self, key: Any) -> dict[str, Any]:
        """Random parameters of the config's dtype.

        Args:
            key: A jax random key, or a whole number.
        """
        return init_params(self.config, key)

    @overload
    def sample_actions(
        self,
        params: Params,
        observation: Observation,
        *,
        noise: ArrayLike | None = None,
        key: Any = None,
        num_steps: int = 10,
        capture: None = None,
        interventions: Sequence[PlacedChange] = (),
    ) -> Array: ...

    @overload
    def sample_actions(
        self,
        params: Params,
        observation: Observation,
        *,
        noise: ArrayLike | None = None,
        key: Any = None,
        num_steps: int = 10,
        capture: CaptureSpec,
        interventions: Sequence[PlacedChange] = (),
    ) -> tuple[Array, dict[str, Array]]: ...

    def sample_actions(
        self,
        params: Params,
        observation: Observation,
        *,
        noise: ArrayLike | None = None,
        key: Any = None,
        num_steps: int = 10,
        capture: CaptureSpec | None = None,
        interventions: Sequence[PlacedChange] = (),
    ) -> Any:
        """Samples action chunks, and captures latents on the way.

        Args:
            params: The model's parameters.
            observation: A batch of inputs.
            noise: [b, h, a], where the flow starts.
            key: A jax random key to draw `noise` from, if that is not given.
            num_steps: Flow steps.
            capture: Latents to keep. The actions do not depend on it.
            interventions: What is changed on the way, before it is captured; none compiles the
                plain program.

        Returns:
            Actions float32 [b, h, a]; with `capture` also the latents by field name, batch
            first, then the field's axes.

        Raises:
            ValueError: if inputs do not fit the model, or the capture or an intervention names
                what it has not.
        """
        observation.check(self.config)
        shape = (observation.state.shape[0], self.config.action_horizon, self.config.action_dim)
        if noise is None:
            if key is None:
                raise ValueError("`noise` must be given if `key` is not, but got None for both.")
            noise = jax.random.normal(key, shape)
        check_shape("noise", noise, shape)
        plan = None if capture is None else self.plan(capture, num_steps)
        places, maps = None, ()
        if interventions:
            places, maps = plan_changes(interventions, self.config, num_steps)
        actions, latents = _sample_actions(
            params, observation, noise, maps, config=self.config, num_steps=num_steps, plan=plan,
            places=places, attention=self._attention_for(plan),
        )  # fmt: skip
        return actions if capture is None else (actions, latents)

    def _attention_for(self, plan: CapturePlan | None) -> Attend | None:
        """The fused path, unless it is not wanted or probabilities are, which it does not give."""
        chosen = choose_attention(self.attention, self.config)
        return None if plan is not None and plan.reads_attention else chosen

    def flow_loss(
        self,
        params: Params,
        observation: Observation,
        actions: ArrayLike,
        *,
        noise: ArrayLike,
        time: ArrayLike,
    ) -> Array:
        """Flow-matching loss, a value a step of the chunk: float32 [b, h].

        Args:
            params: The model's parameters.
            observation: A batch of inputs.
            actions: [b, h, a], the true chunk.
            noise: [b, h, a].
            time: [b], in (0, 1]; 1 is noise.

        Raises:
            ValueError: if inputs do not fit the model.
        """
        observation.check(self.config)
        batch = observation.state.shape[0]
        shape = (batch, self.config.action_horizon, self.config.action_dim)
        check_shape("actions", actions, shape)
        check_shape("noise", noise, shape)
        check_shape("time", time, (batch,))
        return _flow_loss(params, observation, actions, noise, time, config=self.config)

    def plan(self, capture: CaptureSpec, num_steps: int = 10) -> CapturePlan:
        """Makes a capture spec definite for this model.

        Raises:
            ValueError: if it names what the model or the sampler has not.
        """
        return _plan(capture, self.config, num_steps)


@functools.lru_cache(maxsize=64)
def _plan(capture: CaptureSpec, config: Pi0Config, num_steps: int) -> CapturePlan:
    """Resolves a spec once, and says what it leaves out."""
    for name, reason in capture.left_out(config).items():
        logger.info("Not captured: %s (%s).", name, reason)
    return capture.resolve(config, num_steps)


@functools.partial(jax.jit, static_argnames=("config", "num_steps", "plan", "places", "attention"))
def _sample_actions(
    params: Params,
    observation: Observation,
    noise: Array,
    maps: tuple[Map, ...],
    *,
    config: Pi0Config,
    num_steps: int,
    plan: CapturePlan | None,
    places: ChangePlan | None,
    attention: Attend | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The compiled sampler. Float32 products are true float32 on every backend."""
    check_params(params, config)
    with jax.default_matmul_precision("highest"):
        return sampler.sample_actions(
            params, observation, noise.astype(jnp.float32), config, num_steps, plan,
            None if places is None else (places, maps), attention,
        )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("config",))
def _flow_loss(
    params: Params,
    observation: Observation,
    actions: Array,
    noise: Array,
    time: Array,
    *,
    config: Pi0Config,
) -> Array:
    """The compiled loss, at float32 inputs."""
    check_params(params, config)
    actions, noise, time = (value.astype(jnp.float32) for value in (actions, noise, time))
    with jax.default_matmul_precision("highest"):
        return sampler.flow_loss(params, observation, actions, noise, time, config)
