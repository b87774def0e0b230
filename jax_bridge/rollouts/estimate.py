"""What a collection will cost, said before it starts."""

import dataclasses
import math
import pathlib
import tempfile
import time

import numpy as np

from jax_bridge.environments.environment import Environment, RobotObservation
from jax_bridge.policies.policy import Policy, PolicyOutput
from jax_bridge.rollouts.collect import CollectPlan, ShardRecorder
from jax_bridge.rollouts.episode import Capture
from jax_bridge.rollouts.writing_thread import PENDING
from jax_bridge.shards import DatasetInfo, EpisodeWriter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Upper bounds: every episode is taken to last until `max_steps`."""

    episodes: int
    samples: int
    bytes_per_sample: int
    """Of one sample that was tried, images included; the index comes on top (some per cent)."""
    samples_in_memory: int
    """Samples that are on their way to the disk at once."""

    @property
    def host_bytes(self) -> int:
        """Host memory beyond parameters and simulators."""
        return self.samples_in_memory * self.bytes_per_sample

    @property
    def bytes(self) -> int:
        """Bytes of all tars."""
        return self.samples * self.bytes_per_sample


def estimate(environment: Environment, policy: Policy, plan: CollectPlan) -> Estimate:
    """Counts samples and bytes after one start of the simulator; loads no parameters."""
    episodes = len(plan.tasks) * len(plan.episodes)
    per_episode = math.ceil(plan.protocol.max_steps / plan.protocol.interval)
    _start(environment, plan)
    return Estimate(
        episodes=episodes,
        samples=episodes * per_episode,
        bytes_per_sample=_sample_bytes(environment, policy, plan),
        samples_in_memory=samples_in_memory(plan.protocol.batch),
    )


def samples_in_memory(batch: int) -> int:
    """Samples at once: what waits to be written, the calls at hand, and one being encoded.

    A row is a view of its batch, so that a batch stays as long as one of its rows waits.
    """
    waiting = PENDING if batch == 1 else 2 * batch
    return waiting + 2 * batch + 2


def measure_seconds(environment: Environment, policy: Policy, plan: CollectPlan) -> float:
    """Tries one start, one chunk of steps and one policy call, and scales to the whole plan.

    Returns:
        Seconds that the collection takes at most, without compiling and without writing.
    """
    start = time.perf_counter()
    _start(environment, plan)
    reset = time.perf_counter() - start
    policy.infer(_told(environment, plan), capture=plan.capture)  # compiles

    start = time.perf_counter()
    actions = policy.infer(_told(environment, plan), capture=plan.capture).actions
    look = time.perf_counter() - start

    start = time.perf_counter()
    for action in np.clip(actions, -1.0, 1.0):
        environment.step(action)
    step = (time.perf_counter() - start) / len(actions)

    per_episode = reset + plan.protocol.max_steps * step + plan.protocol.calls * look
    return per_episode * len(plan.tasks) * len(plan.episodes)


def _start(environment: Environment, plan: CollectPlan) -> None:
    environment.reset(task_id=plan.tasks[0], episode=plan.episodes[0], seed=plan.protocol.seed)


def _told(environment: Environment, plan: CollectPlan) -> RobotObservation:
    """What the policy is given at the first start: prompts that are too long show here."""
    words = plan.told(environment.tasks[plan.tasks[0]], plan.episodes[0])
    return dataclasses.replace(environment.observe(), instruction=words)


def _sample_bytes(environment: Environment, policy: Policy, plan: CollectPlan) -> int:
    """Writes what the simulator shows now, with zeros for latents and actions."""
    fields = policy.fields(plan.capture)
    latents = {name: np.zeros(spec.shape, spec.numpy_dtype) for name, spec in fields.items()}
    observation = environment.observe()
    actions = np.zeros((policy.action_horizon, len(observation.state)), np.float32)
    capture = Capture(
        timestep=0,
        call=0,
        observation=observation,
        output=PolicyOutput(actions=actions, latents=latents),
        executed=actions[0],
        truth=environment.truth(),
    )
    task = environment.tasks[plan.tasks[0]]
    info = DatasetInfo(fields=fields, capture={}, model={}, environment={}, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        with (
            EpisodeWriter(folder, info, images=plan.image_format) as writer,
            writer.episode(
                suite=task.suite,
                task_id=task.task_id,
                task_name=task.name,
                episode=0,
                instruction=plan.told(task, plan.episodes[0]),
                task_instruction=task.instruction,
            ) as episode,
        ):
            ShardRecorder(episode, policy, plan.images).record(capture)
            episode.finish(success=None)
        return sum(path.stat().st_size for path in pathlib.Path(folder).glob("shards/*.tar"))
