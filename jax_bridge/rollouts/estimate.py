"""What a collection will cost, said before it starts."""

import dataclasses
import math
import time

import numpy as np

from jax_bridge.environments.environment import Environment
from jax_bridge.policies.policy import Policy
from jax_bridge.rollouts.collect import CollectPlan

TAR_BLOCK = 512
"""Bytes to which a tar pads each member, and the size of its header."""

ROBOT_DIMS = 32
"""Dims assumed for state and action: what a π0 holds."""

JSON_BYTES = 2048
"""Bytes assumed for a sample's `.json`, ground truth included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Upper bounds: every episode is taken to last until `max_steps`."""

    episodes: int
    samples: int
    bytes_per_sample: int
    """Latents, robot values and metadata; images come on top (some 10 kB a camera as jpg)."""

    @property
    def bytes(self) -> int:
        """Bytes of the whole data set, without images."""
        return self.samples * self.bytes_per_sample


def estimate(policy: Policy, plan: CollectPlan) -> Estimate:
    """Counts samples and bytes; loads no parameters and steps no simulator."""
    episodes = len(plan.tasks) * len(plan.episodes)
    per_episode = math.ceil(plan.protocol.max_steps / plan.protocol.interval)
    robot = 4 * ROBOT_DIMS * (policy.action_horizon + 2)  # chunk, state, executed
    return Estimate(
        episodes=episodes,
        samples=episodes * per_episode,
        bytes_per_sample=policy.bytes_per_call(plan.capture) + robot + JSON_BYTES + 3 * TAR_BLOCK,
    )


def measure_seconds(environment: Environment, policy: Policy, plan: CollectPlan) -> float:
    """Tries one start, one chunk of steps and one policy call, and scales to the whole plan.

    Returns:
        Seconds that the collection takes at most, without compiling and without writing.
    """
    task = environment.tasks[plan.tasks[0]]
    start = time.perf_counter()
    environment.reset(task_id=task.task_id, episode=plan.episodes[0], seed=plan.protocol.seed)
    reset = time.perf_counter() - start
    policy.infer(environment.observe(), capture=plan.capture)  # compiles

    start = time.perf_counter()
    actions = policy.infer(environment.observe(), capture=plan.capture).actions
    look = time.perf_counter() - start

    start = time.perf_counter()
    for action in np.clip(actions, -1.0, 1.0):
        environment.step(action)
    step = (time.perf_counter() - start) / len(actions)

    looks = math.ceil(plan.protocol.max_steps / plan.protocol.interval)
    per_episode = reset + plan.protocol.max_steps * step + looks * look
    return per_episode * len(plan.tasks) * len(plan.episodes)
