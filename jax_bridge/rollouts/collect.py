"""Rolling a policy through tasks and episodes into one data set of shards."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from jax_bridge.environments.environment import Environment, RobotObservation, Task
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import Policy
from jax_bridge.rollouts.episode import Capture, EpisodeRollout
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.steps import EnvironmentFailureError, Outcome
from jax_bridge.shards import (
    DatasetInfo,
    EpisodeRecorder,
    EpisodeWriter,
    ImageFormat,
    ShardLimits,
    open_writer,
)

Images = Literal["jpg", "png", "none"]
"""How camera images are kept beside the latents."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectPlan:
    """Which episodes to roll out, how, and what to keep."""

    tasks: Sequence[int]
    episodes: Sequence[int]
    protocol: RolloutProtocol
    capture: CaptureSpec
    images: Images = "jpg"
    retry_errors: bool = False
    """Whether episodes that ended in an error before are run again."""

    @property
    def image_format(self) -> ImageFormat | None:
        """How images are stored; None where none are kept."""
        return None if self.images == "none" else ImageFormat(kind=self.images)


@dataclasses.dataclass(kw_only=True)
class CollectReport:
    """What a run did; grows while it runs."""

    skipped: int = 0
    """Episodes that were there already."""
    episodes: int = 0
    samples: int = 0
    successes: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    """One line an episode that the environment ended."""
    waiting: int = 0
    """Shards that wait to be uploaded, where the data set is at an address."""


@runtime_checkable
class Watcher(Protocol):
    """Is told how the run goes (a progress bar)."""

    def update(self, report: CollectReport) -> None:
        """Called at the start and after every episode."""
        ...


def dataset_info(environment: Environment, policy: Policy, plan: CollectPlan) -> DatasetInfo:
    """What `dataset.json` says of the run."""
    return DatasetInfo(
        fields=policy.fields(plan.capture),
        capture=plan.capture.to_json(),
        model=policy.describe(),
        environment={**environment.describe(), "rollout": plan.protocol.describe()},
        seed=plan.protocol.seed,
    )


def _check_replan(policy: Policy, plan: CollectPlan) -> None:
    replan, horizon = plan.protocol.replan, policy.action_horizon
    if plan.protocol.drive == "policy" and replan > horizon:
        raise ValueError(
            f"`replan` must be at most {horizon}, the actions in a chunk of this policy, but got "
            f"{replan}. Lower it."
        )


class ShardRecorder:
    """Hands captures to the shard writer."""

    def __init__(self, episode: EpisodeRecorder, policy: Policy, images: Images) -> None:
        self._episode = episode
        self._policy = policy
        self._images = images
        self.samples = 0

    def record(self, capture: Capture) -> None:
        """Appends one sample."""
        self._episode.append(
            timestep=capture.timestep,
            call=capture.call,
            latents=capture.output.latents,
            state=capture.observation.state,
            actions=capture.output.actions,
            executed=np.asarray(capture.executed, dtype=np.float32),
            images=self._seen(capture.observation),
            truth=capture.truth,
        )
        self.samples += 1

    def _seen(self, observation: RobotObservation) -> dict[str, np.ndarray] | None:
        return None if self._images == "none" else self._policy.seen_images(observation)


class Collector:
    """Runs a `CollectPlan`; what is committed already is skipped, so that it resumes."""

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        plan: CollectPlan,
        *,
        limits: ShardLimits | None = None,
    ) -> None:
        _check_replan(policy, plan)
        self._environment = environment
        self._policy = policy
        self._plan = plan
        self._limits = limits or ShardLimits()

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> CollectReport:
        """Rolls all episodes out into the data set at `path`.

        Args:
            path: a folder or an address.
            watcher: is told how the run goes.
            staging: where shards wait until they are uploaded to an address.

        Raises:
            ValueError: if another data set is there, or the suite has no demonstrator.
            OSError: if the disk is full or the address refuses; what is committed stays whole.
        """
        info = dataset_info(self._environment, self._policy, self._plan)
        report = CollectReport()

        def on_wait(waiting: int) -> None:
            report.waiting = waiting
            watcher.update(report)

        with open_writer(
            path, info, self._limits, self._plan.image_format, staging=staging, on_wait=on_wait
        ) as w:
            todo, report.skipped = self._todo(w)
            watcher.update(report)
            for task, episode in todo:
                self._episode(w, task, episode, report)
                watcher.update(report)
        return report

    def _todo(self, writer: EpisodeWriter) -> tuple[list[tuple[Task, int]], int]:
        """The episodes that are missing, and how many are there already."""
        done = set(writer.committed)
        if not self._plan.retry_errors:
            done |= set(writer.errors)
        wanted = [
            (self._environment.tasks[task_id], episode)
            for task_id in self._plan.tasks
            for episode in self._plan.episodes
        ]
        todo = [(t, e) for t, e in wanted if (t.suite, t.task_id, e) not in done]
        return todo, len(wanted) - len(todo)

    def _episode(
        self, writer: EpisodeWriter, task: Task, episode: int, report: CollectReport
    ) -> None:
        try:
            outcome, samples = self._write(writer, task, episode)
        except EnvironmentFailureError as error:
            with contextlib.suppress(Exception):  # it may be past closing
                self._environment.close()
            writer.record_error(
                suite=task.suite, task_id=task.task_id, episode=episode, message=str(error)
            )
            report.errors.append(f"{task.suite} task {task.task_id} episode {episode}: {error}")
            return
        report.episodes += 1
        report.samples += samples
        report.successes += outcome.success

    def _write(self, writer: EpisodeWriter, task: Task, episode: int) -> tuple[Outcome, int]:
        rollout = EpisodeRollout(
            self._environment,
            self._policy,
            task=task,
            episode=episode,
            protocol=self._plan.protocol,
            capture=self._plan.capture,
        )
        with writer.episode(
            suite=task.suite,
            task_id=task.task_id,
            task_name=task.name,
            episode=episode,
            instruction=task.instruction,
            task_instruction=task.instruction,
            seed=self._plan.protocol.seed,
        ) as open_episode:
            recorder = ShardRecorder(open_episode, self._policy, self._plan.images)
            outcome = rollout.run(recorder)
            open_episode.finish(
                success=outcome.success,
                success_at_end=outcome.success_at_end,
                episode_length=outcome.episode_length,
            )
        return outcome, recorder.samples
