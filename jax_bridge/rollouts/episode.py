"""One episode beside its policy: every request is answered, every capture handed on."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jax_bridge.environments.environment import Environment, RobotObservation, Task
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import Policy, PolicyOutput
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.steps import EpisodeSteps, Outcome, PolicyRequest, StepRecord


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

    @classmethod
    def of(cls, record: StepRecord, request: PolicyRequest, output: PolicyOutput) -> "Capture":
        """Joins what the simulator and the policy know of a call."""
        return cls(
            timestep=record.timestep,
            call=record.call,
            observation=request.observation,
            output=output,
            executed=record.executed,
            truth=record.truth,
        )


@runtime_checkable
class Recorder(Protocol):
    """Takes the captures of one episode."""

    def record(self, capture: Capture) -> None:
        """Keeps one capture."""
        ...


class EpisodeRollout:
    """One episode of one task."""

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        *,
        task: Task,
        episode: int,
        protocol: RolloutProtocol,
        capture: CaptureSpec,
        instruction: str,
    ) -> None:
        self._steps = EpisodeSteps(environment, task=task, episode=episode, protocol=protocol)
        self._policy = policy
        self._capture = capture
        self._instruction = instruction

    def run(self, recorder: Recorder) -> Outcome:
        """Rolls the episode out.

        Raises:
            EnvironmentFailureError: if the simulator raised.
            ValueError: if the suite has no demonstrator, or the policy cannot read what it sees.
        """
        talk = self._steps.talk()
        asked: tuple[PolicyRequest, PolicyOutput] | None = None
        reply: PolicyOutput | None = None
        while True:
            try:
                said = talk.send(reply)
            except StopIteration as end:
                return end.value
            if isinstance(said, PolicyRequest):
                said = said.telling(self._instruction)
                reply = self._infer(said)
                asked = said, reply
            else:
                assert asked is not None
                recorder.record(Capture.of(said, *asked))
                reply = None

    def _infer(self, request: PolicyRequest) -> PolicyOutput:
        return self._policy.infer(
            request.observation,
            capture=self._capture if request.looks else None,
            noise_key=request.noise_key,
        )
