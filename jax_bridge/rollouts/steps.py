"""One episode as a conversation: it asks for policy calls, is told their chunks, and reports.

The same steps run beside the policy and in another process; nothing here needs jax.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from jax_bridge.environments.environment import Environment, RobotObservation, StepResult, Task
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.rollouts.driver import (
    DemonstratorDriver,
    Driver,
    PolicyDriver,
    noise_generator,
)
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.shards.canonical_json import canonical_json


class EnvironmentFailureError(RuntimeError):
    """The simulator raised: ends the episode, never the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """Asks for one policy call."""

    observation: RobotObservation
    looks: bool
    """Whether latents are to be kept."""
    noise_key: tuple[int | str, ...]

    def telling(self, instruction: str) -> "PolicyRequest":
        """The same request with these words for the policy; the simulator keeps its own."""
        observation = dataclasses.replace(self.observation, instruction=instruction)
        return dataclasses.replace(self, observation=observation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What the simulator adds to a call whose latents are kept."""

    timestep: int
    call: int | None
    """Number of the driving call; None where the policy only watched."""
    executed: np.ndarray
    truth: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode ended."""

    success: bool
    """Whether the goal ever held."""
    success_at_end: bool
    episode_length: int
    """Environment steps after settling."""


EpisodeTalk = Generator[PolicyRequest | StepRecord, PolicyOutput | None, Outcome]
"""Yields requests, which are answered, and records, which are not; returns the outcome."""


@contextlib.contextmanager
def environment_guard() -> Iterator[None]:
    """Turns whatever a simulator raises into an `EnvironmentFailureError`."""
    try:
        yield
    except Exception as error:
        raise EnvironmentFailureError(f"{type(error).__name__}: {error}") from error


def make_driver(
    environment: Environment, protocol: RolloutProtocol, key: tuple[str, int, int]
) -> Driver:
    """The driver of a freshly reset episode.

    Raises:
        ValueError: if the suite has no demonstrator.
    """
    if protocol.drive == "policy":
        return PolicyDriver(replan=protocol.replan)
    return DemonstratorDriver(
        environment.demonstrator(),
        noise=protocol.noise,
        generator=noise_generator(protocol, key),
    )


class EpisodeSteps:
    """One episode of one task, step by step."""

    def __init__(
        self, environment: Environment, *, task: Task, episode: int, protocol: RolloutProtocol
    ) -> None:
        self._environment = environment
        self._protocol = protocol
        self._key = (task.suite, task.task_id, episode)
        self._action = np.zeros(0, np.float32)

    def talk(self) -> EpisodeTalk:
        """Rolls the episode out, asking for every policy call.

        Raises:
            EnvironmentFailureError: if the simulator raised.
            ValueError: if the suite has no demonstrator.
        """
        _, task_id, episode = self._key
        with environment_guard():
            self._environment.reset(task_id=task_id, episode=episode, seed=self._protocol.seed)
        driver = make_driver(self._environment, self._protocol, self._key)
        return (yield from self._steps(driver))

    def _steps(self, driver: Driver) -> EpisodeTalk:
        first_success: int | None = None
        result = StepResult(success=False)
        timestep = 0
        while timestep < self._protocol.max_steps and not result.done:
            if first_success is not None and self._lasted(timestep - first_success):
                break
            yield from self._ask(timestep, driver)
            with environment_guard():
                result = self._environment.step(self._action)
            timestep += 1
            if result.success and first_success is None:
                first_success = timestep
        return Outcome(
            success=first_success is not None,
            success_at_end=result.success,
            episode_length=timestep,
        )

    def _lasted(self, steps_since_success: int) -> bool:
        return steps_since_success >= self._protocol.after_success

    def _ask(
        self, timestep: int, driver: Driver
    ) -> Generator[PolicyRequest | StepRecord, PolicyOutput | None, None]:
        """Asks for a call where one is needed, and reports it where it is kept."""
        drives = driver.needs_call
        looks = self._looks(timestep, drives=drives)
        call: int | None = None
        if drives or looks:
            output = yield self._request(timestep, driver, looks=looks)
            assert output is not None
            call = driver.take(output) if drives else None
        with environment_guard():
            self._action = driver.act()
        if looks:
            with environment_guard():
                truth = self._environment.truth()
                canonical_json(truth)  # what cannot be stored (NaN) is the simulator's error too
            yield StepRecord(timestep=timestep, call=call, executed=self._action, truth=truth)

    def _looks(self, timestep: int, *, drives: bool) -> bool:
        if self._protocol.stride is None and self._protocol.drive == "policy":
            return drives
        return timestep % self._protocol.interval == 0

    def _request(self, timestep: int, driver: Driver, *, looks: bool) -> PolicyRequest:
        with environment_guard():
            observation = self._environment.observe()
        moment = ("call", driver.calls) if driver.needs_call else ("watch", timestep)
        return PolicyRequest(
            observation=observation,
            looks=looks,
            noise_key=(self._protocol.seed, *self._key, *moment),
        )
