"""A process that holds simulators: it steps them until they need their policy, and says so.

It imports neither jax nor the policy. Slots of one process take turns.
"""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import threadpoolctl

from jax_bridge.environments.environment import Environment
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.steps import (
    EnvironmentFailureError,
    EpisodeSteps,
    EpisodeTalk,
    Outcome,
    PolicyRequest,
    StepRecord,
)

MakeEnvironment = Callable[[], Environment]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Begin:
    """Starts an episode in a slot."""

    slot: int
    task_id: int
    episode: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Act:
    """The chunk that a slot asked for."""

    slot: int
    actions: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What a slot says next: exactly one of request, outcome, failure, refusal and crash."""

    slot: int
    record: StepRecord | None = None
    """Belongs to the slot's call before."""
    request: PolicyRequest | None = None
    outcome: Outcome | None = None
    failure: str | None = None
    """The simulator's error: ends the episode."""
    refusal: str | None = None
    """An error of the user's: ends the run."""
    crash: str | None = None
    """Anything else, with its traceback."""


class Slot:
    """One simulator and the episode that runs in it."""

    def __init__(
        self, number: int, make_environment: MakeEnvironment, protocol: RolloutProtocol
    ) -> None:
        self._number = number
        self._make = make_environment
        self._protocol = protocol
        self._environment: Environment | None = None
        self._talk: EpisodeTalk | None = None

    def answer(self, message: Begin | Act) -> Reply:
        """Goes on until the policy is needed, or the episode ends."""
        try:
            if isinstance(message, Begin):
                self._begin(message)
                return self._until_request(None)
            return self._until_request(PolicyOutput(actions=message.actions, latents={}))
        except EnvironmentFailureError as error:
            self.close()
            return Reply(slot=self._number, failure=str(error))
        except (ValueError, OSError) as error:
            return Reply(slot=self._number, refusal=str(error))
        except Exception:
            return Reply(slot=self._number, crash=traceback.format_exc())

    def close(self) -> None:
        """Frees the simulator."""
        if self._environment is not None:
            with contextlib.suppress(Exception):  # it may be past closing
                self._environment.close()

    def _begin(self, message: Begin) -> None:
        self._environment = self._environment or self._make()
        task = self._environment.tasks[message.task_id]
        steps = EpisodeSteps(
            self._environment, task=task, episode=message.episode, protocol=self._protocol
        )
        self._talk = steps.talk()

    def _until_request(self, given: PolicyOutput | None) -> Reply:
        assert self._talk is not None
        record: StepRecord | None = None
        try:
            said = self._talk.send(given)
            if isinstance(said, StepRecord):
                record = said
                said = self._talk.send(None)
        except StopIteration as end:
            return Reply(slot=self._number, record=record, outcome=end.value)
        assert isinstance(said, PolicyRequest)
        return Reply(slot=self._number, record=record, request=said)


def run_simulators(
    connection: Connection, make_environment: MakeEnvironment, protocol: RolloutProtocol
) -> None:
    """Answers `Begin` and `Act` until the other side closes, or dies."""
    slots: dict[int, Slot] = {}
    waiting: list[Begin | Act] = []
    with threadpoolctl.threadpool_limits(1), contextlib.suppress(EOFError, OSError):
        while True:
            while not waiting or connection.poll():
                waiting.append(connection.recv())
            # Slots that step go first: others wait for them, but nobody waits for a start.
            waiting.sort(key=lambda message: isinstance(message, Begin))
            message = waiting.pop(0)
            if message.slot not in slots:
                slots[message.slot] = Slot(message.slot, make_environment, protocol)
            connection.send(slots[message.slot].answer(message))
    for slot in slots.values():
        slot.close()


def run_process(descriptor: int) -> None:
    """The whole of a process: `descriptor` is its end of a pipe, what to make comes first."""
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        try:
            make_environment, protocol = connection.recv()
        except (AttributeError, ImportError) as error:
            reason = f"A simulator must be importable in another process, but: {error}."
            connection.send(Reply(slot=connection.recv().slot, refusal=reason))
            return
        run_simulators(connection, make_environment, protocol)
