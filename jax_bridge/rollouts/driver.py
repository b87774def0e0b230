"""Who moves the robot: the policy's chunks, or a demonstrator with noise.

Letters: a action dims.
"""

import zlib
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.environment import Demonstrator
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.rollouts.protocol import RolloutProtocol

TRANSLATION = slice(0, 3)
"""Dims of an action that move the hand, in LIBERO's order."""


@runtime_checkable
class Driver(Protocol):
    """Gives the action of each step."""

    @property
    def needs_call(self) -> bool:
        """Whether the next action needs a policy call first."""
        ...

    @property
    def calls(self) -> int:
        """Driving calls so far."""
        ...

    def take(self, output: PolicyOutput) -> int:
        """Accepts the chunk of a driving call; returns the call's number, from 0."""
        ...

    def act(self) -> Float32[np.ndarray, " a"]:
        """The action to send now."""
        ...


class PolicyDriver:
    """Sends the first `replan` actions of each chunk."""

    def __init__(self, *, replan: int) -> None:
        self._replan = replan
        self._pending: list[np.ndarray] = []
        self._calls = 0

    @property
    def needs_call(self) -> bool:
        """Whether the chunk is used up."""
        return not self._pending

    @property
    def calls(self) -> int:
        """Driving calls so far."""
        return self._calls

    def take(self, output: PolicyOutput) -> int:
        """Queues the chunk's first actions."""
        self._pending = list(output.actions[: self._replan])
        self._calls += 1
        return self._calls - 1

    def act(self) -> Float32[np.ndarray, " a"]:
        """The next action of the chunk."""
        return self._pending.pop(0)


class DemonstratorDriver:
    """Sends a demonstrator's actions with Gaussian noise on the translation."""

    def __init__(
        self, demonstrator: Demonstrator, *, noise: float, generator: np.random.Generator
    ) -> None:
        self._demonstrator = demonstrator
        self._noise = noise
        self._generator = generator

    @property
    def needs_call(self) -> bool:
        """Never: the demonstrator looks at the ground truth."""
        return False

    @property
    def calls(self) -> int:
        """No call drives."""
        return 0

    def take(self, output: PolicyOutput) -> int:
        """Never called: a demonstrator asks no policy."""
        raise AssertionError("a demonstrator takes no chunk")

    def act(self) -> Float32[np.ndarray, " a"]:
        """The demonstrator's action, disturbed and clipped to [-1, 1]."""
        return disturbed(self._demonstrator.act(), self._noise, self._generator)


def disturbed(
    action: Float32[np.ndarray, " a"], noise: float, generator: np.random.Generator
) -> Float32[np.ndarray, " a"]:
    """An action with Gaussian noise on its translation, clipped to [-1, 1] there."""
    sent = np.array(action, dtype=np.float32)
    moved = sent[TRANSLATION] + generator.normal(0.0, noise, 3)
    sent[TRANSLATION] = np.clip(moved, -1.0, 1.0)
    return sent


def noise_generator(protocol: RolloutProtocol, key: tuple[str, int, int]) -> np.random.Generator:
    """The demonstrator's noise for one episode: a pure function of seed, suite, task, episode."""
    suite, task_id, episode = key
    return np.random.default_rng([protocol.seed, zlib.crc32(suite.encode()), task_id, episode])
