"""What a simulator must offer so that policies can be rolled out in it.

Letters: s robot state; a action.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a suite."""

    suite: str
    task_id: int
    """Number inside the suite, from 0."""
    name: str
    instruction: str
    """What the robot is told to do, in words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobotObservation:
    """What a policy is given at one step."""

    images: dict[str, np.ndarray]
    """[h, w, 3] by camera name (`base`, `left_wrist`, `right_wrist`), upright: uint8, or floats
    in [0, 1]; a camera that the robot does not have is absent."""
    state: Float32[np.ndarray, " s"]
    """Robot state in robot units."""
    instruction: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one environment step led to."""

    success: bool
    """Whether the goal holds after this step."""
    done: bool = False
    """Whether the simulator refuses to go on (not: whether the goal holds)."""


@runtime_checkable
class Demonstrator(Protocol):
    """Solves the task at hand from the simulator's ground truth."""

    def act(self) -> Float32[np.ndarray, " a"]:
        """The next action, in robot units."""
        ...


@runtime_checkable
class Environment(Protocol):
    """A suite of tasks that can be reset, observed and stepped.

    `observe` alone renders, so that steps at which nobody looks cost no images.
    """

    @property
    def suite(self) -> str:
        """Name of the suite, a word of letters, digits and underscores."""
        ...

    @property
    def tasks(self) -> Sequence[Task]:
        """All tasks of the suite; `tasks[i].task_id == i`."""
        ...

    @property
    def episodes(self) -> int | None:
        """How many different starts a task has; None where any number can be drawn."""
        ...

    @property
    def max_steps(self) -> int:
        """Default limit of an episode, in environment steps after settling."""
        ...

    def describe(self) -> dict[str, Any]:
        """Name, version and protocol (settling, cameras, sizes): enters the fingerprint."""
        ...

    def reset(self, *, task_id: int, episode: int, seed: int) -> None:
        """Starts an episode, settling steps included: same arguments, same start."""
        ...

    def observe(self) -> RobotObservation:
        """Renders the cameras and reads the robot."""
        ...

    def step(self, action: Float32[np.ndarray, " a"]) -> StepResult:
        """Advances by one step."""
        ...

    def truth(self) -> dict[str, Any]:
        """Ground truth now, JSON-able: object positions in metres, predicates."""
        ...

    def demonstrator(self) -> Demonstrator:
        """A demonstrator for the running episode.

        Raises:
            ValueError: if this suite has none.
        """
        ...

    def close(self) -> None:
        """Frees the simulator; a later `reset` builds it anew."""
        ...
