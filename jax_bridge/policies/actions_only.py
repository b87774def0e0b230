"""A policy that is asked for its actions and for nothing else."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import BatchedPolicy, Policy, PolicyCall, PolicyOutput
from jax_bridge.shards.field import FieldSpec


class ActionsOnly:
    """Leaves every capture out: rollouts whose success counts need no latents.

    Args:
        policy: who acts.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def action_horizon(self) -> int:
        """How many actions one call gives."""
        return self._policy.action_horizon

    def describe(self) -> dict[str, Any]:
        """That of the policy."""
        return self._policy.describe()

    def fields(self, capture: CaptureSpec) -> dict[str, FieldSpec]:
        """None."""
        return {}

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as the policy sees them, by camera name."""
        return self._policy.seen_images(observation)

    def infer(
        self,
        observation: RobotObservation,
        *,
        capture: CaptureSpec | None = None,
        noise_key: Sequence[int | str] = (),
    ) -> PolicyOutput:
        """The next actions."""
        return self._policy.infer(observation, noise_key=noise_key)

    def infer_batch(
        self, calls: Sequence[PolicyCall | None], *, capture: CaptureSpec | None = None
    ) -> list[PolicyOutput | None]:
        """The actions of a batch, row by row."""
        if isinstance(self._policy, BatchedPolicy):
            return self._policy.infer_batch(calls)
        return [
            call and self._policy.infer(call.observation, noise_key=call.noise_key)
            for call in calls
        ]
