"""A counting environment and a counting policy: small enough to know every number by heart."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jax_bridge.environments.environment import RobotObservation, StepResult, Task
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.shards import FieldSpec

FIELD = "vlm.hidden_states.text.mean"


class CountingEnvironment:
    """Holds its goal from `success_at` until `lost_at`; raises where `fails` says so."""

    def __init__(self, *, success_at=None, lost_at=None, fails=(), demonstrated=True):
        self.success_at, self.lost_at, self.fails = success_at, lost_at, set(fails)
        self.demonstrated = demonstrated
        self.timestep = 0
        self.task = None
        self.sent: list[np.ndarray] = []
        self.closed = 0

    suite = "counting"
    tasks = tuple(
        Task(suite="counting", task_id=i, name=f"count_{i}", instruction=f"count to {i}")
        for i in range(3)
    )
    episodes = None
    max_steps = 12

    def describe(self) -> dict[str, Any]:
        return {"name": "counting"}

    def reset(self, *, task_id: int, episode: int, seed: int) -> None:
        self.timestep, self.task, self.episode = 0, self.tasks[task_id], episode
        self.sent = []

    def observe(self) -> RobotObservation:
        image = np.full((8, 8, 3), self.timestep, np.uint8)
        state = np.full(8, self.timestep, np.float32)
        return RobotObservation(
            images={"base": image}, state=state, instruction=self.task.instruction
        )

    def step(self, action) -> StepResult:
        if (self.task.task_id, self.episode, self.timestep) in self.fails:
            raise RuntimeError(f"exploded at step {self.timestep}")
        self.sent.append(np.array(action))
        self.timestep += 1
        reached = self.success_at is not None and self.timestep >= self.success_at
        lost = self.lost_at is not None and self.timestep >= self.lost_at
        return StepResult(success=reached and not lost)

    def truth(self) -> dict[str, Any]:
        return {"count": self.timestep}

    def demonstrator(self):
        if not self.demonstrated:
            raise ValueError("`drive` must be policy for counting, but got demonstrator.")
        return self

    def act(self):
        return np.full(7, 0.25, np.float32)

    def close(self) -> None:
        self.closed += 1


@dataclasses.dataclass
class CountingPolicy:
    """Its chunk says which call it was; its latent says which step it saw."""

    horizon: int = 6
    calls: list[tuple] = dataclasses.field(default_factory=list)

    action_horizon = 6

    def describe(self) -> dict[str, Any]:
        return {"name": "counting"}

    def fields(self, capture) -> dict[str, FieldSpec]:
        spec = FieldSpec(
            name=FIELD, dtype="float32", shape=(2, 4), axes=("layer", "width"), layers=(0, 1)
        )
        return {FIELD: spec}

    def seen_images(self, observation):
        return observation.images

    def infer(self, observation, *, capture=None, noise_key=()) -> PolicyOutput:
        self.calls.append((noise_key, capture is not None))
        step = observation.state[0]
        chunk = np.linspace(0, 0.5, 6, dtype=np.float32)[:, None] + np.full((1, 7), step / 100)
        latents = {FIELD: np.full((2, 4), step, np.float32)} if capture is not None else {}
        return PolicyOutput(actions=chunk.astype(np.float32), latents=latents)


@pytest.fixture
def environment():
    return CountingEnvironment()


@pytest.fixture
def policy():
    return CountingPolicy()


@pytest.fixture
def counting():
    return CountingEnvironment
