"""Demonstrations of a simulator as one data set of shards."""

import contextlib

from jax_bridge.demos.chunks import check_horizon
from jax_bridge.demos.description import ENTRY, Demonstrations
from jax_bridge.environments.environment import Environment, Task
from jax_bridge.rollouts.collect import CollectPlan, CollectReport, Watcher, missing_episodes
from jax_bridge.rollouts.demo_episode import DemoRecorder, demonstrate
from jax_bridge.rollouts.steps import EnvironmentFailureError, Outcome, environment_guard
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ShardLimits, open_writer


class DemoCollector:
    """Writes demonstrations; what is committed already is skipped, so that it resumes."""

    def __init__(
        self,
        environment: Environment,
        plan: CollectPlan,
        *,
        horizon: int,
        limits: ShardLimits | None = None,
    ) -> None:
        """Prepares.

        Args:
            environment: must have a demonstrator.
            plan: which episodes; its `capture` is not used.
            horizon: actions a chunk.
            limits: when to start a new shard.

        Raises:
            ValueError: if the policy is to drive, or the horizon is not positive.
        """
        check_horizon(horizon)
        if plan.protocol.drive != "demonstrator":
            raise ValueError(
                "`drive` must be demonstrator where demonstrations are recorded, but got "
                f"{plan.protocol.drive}. Add --drive demonstrator."
            )
        self._environment = environment
        self._plan = plan
        self._horizon = horizon
        self._limits = limits or ShardLimits()

    def info(self) -> DatasetInfo:
        """What `dataset.json` says; starts the first episode to see what there is.

        Raises:
            ValueError: if the suite has no demonstrator, or cannot be started.
        """
        plan, environment = self._plan, self._environment
        try:
            with environment_guard():
                environment.reset(
                    task_id=plan.tasks[0], episode=plan.episodes[0], seed=plan.protocol.seed
                )
                seen = environment.observe()
        except EnvironmentFailureError as error:
            raise ValueError(
                f"`env` must be a simulator that starts, but {environment.suite} does not: {error}"
            ) from error
        sizes = Demonstrations(
            horizon=self._horizon,
            action_dim=len(environment.demonstrator().act()),
            state_dim=len(seen.state),
            cameras=() if plan.images == "none" else tuple(seen.images),
        )
        entries = {"rollout": plan.protocol.describe(), ENTRY: sizes.to_json()}
        return DatasetInfo(
            fields={}, capture={}, model={}, environment={**environment.describe(), **entries},
            seed=plan.protocol.seed,
        )  # fmt: skip

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> CollectReport:
        """Writes all episodes into the data set at `path`.

        Args:
            path: a folder or an address.
            watcher: is told how the run goes.
            staging: where shards wait until they are uploaded to an address.

        Raises:
            ValueError: if another data set is there, or the suite has no demonstrator.
            OSError: if the disk is full or the address refuses; what is committed stays whole.
        """
        info, report = self.info(), CollectReport()

        def on_wait(waiting: int) -> None:
            report.waiting = waiting
            watcher.update(report)

        with open_writer(
            path, info, self._limits, self._plan.image_format, staging=staging, on_wait=on_wait
        ) as writer:
            todo, report.skipped = missing_episodes(self._environment, self._plan, writer)
            watcher.update(report)
            for task, episode in todo:
                self._episode(writer, task, episode, report)
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
            writer.record_error(
                suite=task.suite, task_id=task.task_id, episode=episode, message=str(error)
            )
            report.errors.append(f"{task.suite} task {task.task_id} episode {episode}: {error}")
            return
        report.episodes += 1
        report.samples += samples
        report.successes += outcome.success

    def _write(self, writer: EpisodeWriter, task: Task, episode: int) -> tuple[Outcome, int]:
        plan = self._plan
        with writer.episode(
            suite=task.suite, task_id=task.task_id, task_name=task.name, episode=episode,
            instruction=task.instruction, task_instruction=task.instruction,
            seed=plan.protocol.seed,
        ) as open_episode:  # fmt: skip
            recorder = DemoRecorder(
                open_episode, horizon=self._horizon, images=plan.images != "none"
            )
            key = (task.suite, task.task_id, episode)
            outcome = demonstrate(self._environment, plan.protocol, key, recorder)
            open_episode.finish(
                success=outcome.success, success_at_end=outcome.success_at_end,
                episode_length=outcome.episode_length,
            )  # fmt: skip
        return outcome, recorder.samples
