"""What a policy must offer so that it can be rolled out and looked into.

Letters: h action horizon; a dimensions of a robot action.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.shards.field import FieldSpec

if TYPE_CHECKING:
    from jax_bridge.pi0 import CaptureSpec


class PolicyOutput(NamedTuple):
    """What one policy call gives."""

    actions: Float32[np.ndarray, "h a"]
    """The action chunk in robot units, earliest action first."""
    latents: dict[str, np.ndarray]
    """By field name, without a batch axis; empty where nothing was to be captured."""


class PolicyCall(NamedTuple):
    """One row of a batch."""

    observation: RobotObservation
    noise_key: Sequence[int | str]


@runtime_checkable
class Policy(Protocol):
    """Turns what a robot sees, feels and is told into its next actions.

    Constructing a policy is cheap: weights are loaded when they are first needed.
    """

    @property
    def action_horizon(self) -> int:
        """How many actions one call gives."""
        ...

    def describe(self) -> dict[str, Any]:
        """Weights (`params_digest`), sizes and pre-processing, JSON-able: enters the fingerprint.

        `checkpoint`, the place where the weights lay, is noted but does not enter it.
        """
        ...

    def fields(self, capture: "CaptureSpec") -> dict[str, FieldSpec]:
        """Every latent that `infer` gives with this capture, by name; loads no weights."""
        ...

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as the policy sees them, by camera name."""
        ...

    def infer(
        self,
        observation: RobotObservation,
        *,
        capture: "CaptureSpec | None" = None,
        noise_key: Sequence[int | str] = (),
    ) -> PolicyOutput:
        """The next actions, and the latents that `capture` names.

        Args:
            observation: what the robot sees, feels and is told.
            capture: which latents to read; None for actions alone.
            noise_key: names this call (suite, task, episode, call …): same words, same noise.
        """
        ...


@runtime_checkable
class BatchedPolicy(Policy, Protocol):
    """A policy that answers several robots in one call."""

    def infer_batch(
        self, calls: Sequence[PolicyCall | None], *, capture: "CaptureSpec | None" = None
    ) -> list[PolicyOutput | None]:
        """The outputs of a batch, row by row.

        Args:
            calls: at least one; None leaves a row empty, so that the batch keeps its size and
                every other row its place.
            capture: which latents to read.
        """
        ...
