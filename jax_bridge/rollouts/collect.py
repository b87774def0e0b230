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
from jax_bridge.rollouts.instructions import Instructions
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.slots import part_of
from jax_bridge.rollouts.steps import EnvironmentFailureError, Outcome
from jax_bridge.rollouts.writing_thread import WritingThread
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
    shard: tuple[int, int] = (0, 1)
    """Which part of all episodes this host rolls out, from 0, and of how many parts."""
    retry_errors: bool = False
    """Whether episodes that ended in an error before are run again."""
    instructions: Instructions | None = None
    """What the policy is told in place of the tasks' own words."""

    def told(self, task: Task, episode: int) -> str:
        """The words that the policy reads in an episode."""
        if self.instructions is None:
            return task.instruction
        return self.instructions.instruction(seed=self.protocol.seed, task=task, episode=episode)

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
        instruction_overrides=None if plan.instructions is None else plan.instructions.to_json(),
    )


def check_replan(policy: Policy, plan: CollectPlan) -> None:
    """Raises where a chunk would be sent beyond its end."""
    replan, horizon = plan.protocol.replan, policy.action_horizon
    if plan.protocol.drive == "policy" and replan > horizon:
        raise ValueError(
            f"`replan` must be at most {horizon}, the actions in a chunk of this policy, but got "
            f"{replan}. Lower it."
        )


def missing_episodes(
    environment: Environment, plan: CollectPlan, writer: EpisodeWriter
) -> tuple[list[tuple[Task, int]], int]:
    """The episodes of this host that are missing, and how many are there already."""
    done = set(writer.committed)
    if not plan.retry_errors:
        done |= set(writer.errors)
    wanted = [
        (environment.tasks[task_id], episode) for task_id in plan.tasks for episode in plan.episodes
    ]
    wanted = part_of(wanted, *plan.shard)
    todo = [(t, e) for t, e in wanted if (t.suite, t.task_id, e) not in done]
    return todo, len(wanted) - len(todo)


def note_failure(
    writer: EpisodeWriter, task: Task, episode: int, message: str, report: CollectReport
) -> None:
    """Notes an episode that its simulator ended."""
    writer.record_error(suite=task.suite, task_id=task.task_id, episode=episode, message=message)
    report.errors.append(f"{task.suite} task {task.task_id} episode {episode}: {message}")


def finish_episode(open_episode: EpisodeRecorder, outcome: Outcome) -> None:
    """Makes an episode durable, with its outcome."""
    open_episode.finish(
        success=outcome.success,
        success_at_end=outcome.success_at_end,
        episode_length=outcome.episode_length,
    )


class ShardRecorder:
    """Hands captures to the shard writer, through a thread if one is given."""

    def __init__(
        self,
        episode: EpisodeRecorder,
        policy: Policy,
        images: Images,
        writing: WritingThread | None = None,
    ) -> None:
        self._episode = episode
        self._policy = policy
        self._images = images
        self._writing = writing
        self.samples = 0

    def record(self, capture: Capture) -> None:
        """Appends one sample; what a simulator may write over with its next step is copied."""
        seen = capture.observation
        images = {} if self._images == "none" else seen.images
        copy = RobotObservation(
            images={name: np.array(image) for name, image in images.items()},
            state=np.array(seen.state),
            instruction=seen.instruction,
        )
        if self._writing is None:
            self._append(capture=capture, observation=copy)
        else:
            self._writing.submit(self._append, capture=capture, observation=copy)
        self.samples += 1

    def _append(self, *, capture: Capture, observation: RobotObservation) -> None:
        self._episode.append(
            timestep=capture.timestep,
            call=capture.call,
            latents=capture.output.latents,
            state=observation.state,
            actions=capture.output.actions,
            executed=np.asarray(capture.executed, dtype=np.float32),
            images=self._policy.seen_images(observation) if observation.images else None,
            truth=capture.truth,
        )


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
        check_replan(policy, plan)
        self._environment = environment
        self._policy = policy
        self._plan = plan
        self._limits = limits or ShardLimits()
        self._writing = WritingThread()

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
            todo, report.skipped = missing_episodes(self._environment, self._plan, w)
            watcher.update(report)
            with contextlib.closing(WritingThread()) as self._writing:
                for task, episode in todo:
                    self._episode(w, task, episode, report)
                    watcher.update(report)
        return report

    def _episode(
        self, writer: EpisodeWriter, task: Task, episode: int, report: CollectReport
    ) -> None:
        try:
            outcome, samples = self._write(writer, task, episode)
        except EnvironmentFailureError as error:
            with contextlib.suppress(Exception):  # it may be past closing
                self._environment.close()
            note_failure(writer, task, episode, str(error), report)
            return
        report.episodes += 1
        report.samples += samples
        report.successes += outcome.success

    def _write(self, writer: EpisodeWriter, task: Task, episode: int) -> tuple[Outcome, int]:
        told = self._plan.told(task, episode)
        rollout = EpisodeRollout(
            self._environment,
            self._policy,
            task=task,
            episode=episode,
            protocol=self._plan.protocol,
            capture=self._plan.capture,
            instruction=told,
        )
        with writer.episode(
            suite=task.suite,
            task_id=task.task_id,
            task_name=task.name,
            episode=episode,
            instruction=told,
            task_instruction=task.instruction,
            seed=self._plan.protocol.seed,
        ) as open_episode:
            recorder = ShardRecorder(open_episode, self._policy, self._plan.images, self._writing)
            try:
                outcome = rollout.run(recorder)
            except BaseException:  # Ctrl-C as well: nothing may be written after the drop
                self._writing.forget()
                raise
            self._writing.drain()
            finish_episode(open_episode, outcome)
        return outcome, recorder.samples
