"""One episode: step the environment, ask the policy, hand every capture to the recorder."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jax_bridge.environments.environment import Environment, RobotObservation, StepResult, Task
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import Policy, PolicyOutput
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
class Capture:
    """What one captured policy call leaves behind."""

    timestep: int
    call: int | None
    """Number of the driving call; None where the policy only watched."""
    observation: RobotObservation
    output: PolicyOutput
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


@runtime_checkable
class Recorder(Protocol):
    """Takes the captures of one episode."""

    def record(self, capture: Capture) -> None:
        """Keeps one capture."""
        ...


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


class EpisodeRollout:
    """One episode of one task, step by step."""

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        *,
        task: Task,
        episode: int,
        protocol: RolloutProtocol,
        capture: CaptureSpec,
    ) -> None:
        self._environment = environment
        self._policy = policy
        self._protocol = protocol
        self._capture = capture
        self._key = (task.suite, task.task_id, episode)

    def run(self, recorder: Recorder) -> Outcome:
        """Rolls the episode out.

        Raises:
            EnvironmentFailureError: if the simulator raised.
            ValueError: if the suite has no demonstrator, or the policy cannot read what it sees.
        """
        _, task_id, episode = self._key
        with environment_guard():
            self._environment.reset(task_id=task_id, episode=episode, seed=self._protocol.seed)
        driver = make_driver(self._environment, self._protocol, self._key)
        return self._steps(driver, recorder)

    def _steps(self, driver: Driver, recorder: Recorder) -> Outcome:
        first_success: int | None = None
        result = StepResult(success=False)
        timestep = 0
        while timestep < self._protocol.max_steps and not result.done:
            if first_success is not None and self._lasted(timestep - first_success):
                break
            result = self._step(timestep, driver, recorder)
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

    def _step(self, timestep: int, driver: Driver, recorder: Recorder) -> StepResult:
        drives = driver.needs_call
        looks = self._looks(timestep, drives=drives)
        seen = self._ask(timestep, driver, looks=looks) if drives or looks else None
        call = driver.take(seen[1]) if drives and seen is not None else None
        with environment_guard():
            executed = driver.act()
        if looks and seen is not None:
            with environment_guard():
                truth = self._environment.truth()
                canonical_json(truth)  # what cannot be stored (NaN) is the simulator's error too
            recorder.record(
                Capture(
                    timestep=timestep,
                    call=call,
                    observation=seen[0],
                    output=seen[1],
                    executed=executed,
                    truth=truth,
                )
            )
        with environment_guard():
            return self._environment.step(executed)

    def _looks(self, timestep: int, *, drives: bool) -> bool:
        if self._protocol.stride is None and self._protocol.drive == "policy":
            return drives
        return timestep % self._protocol.interval == 0

    def _ask(
        self, timestep: int, driver: Driver, *, looks: bool
    ) -> tuple[RobotObservation, PolicyOutput]:
        with environment_guard():
            observation = self._environment.observe()
        moment = ("call", driver.calls) if driver.needs_call else ("watch", timestep)
        output = self._policy.infer(
            observation,
            capture=self._capture if looks else None,
            noise_key=(self._protocol.seed, *self._key, *moment),
        )
        return observation, output
