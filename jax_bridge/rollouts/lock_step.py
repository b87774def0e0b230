"""Many simulators, one batched policy: collecting with `--workers`.

Every call has the same batch size, and an episode always the same row of it; the other rows do not
change a row's results. So a data set does not depend on how many processes step the simulators.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Sequence

from jax_bridge.environments.environment import Environment, Task
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import BatchedPolicy, Policy, PolicyCall, PolicyOutput
from jax_bridge.rollouts.collect import (
    CollectPlan,
    CollectReport,
    ShardRecorder,
    Watcher,
    check_replan,
    dataset_info,
    finish_episode,
    missing_episodes,
    note_failure,
)
from jax_bridge.rollouts.episode import Capture
from jax_bridge.rollouts.simulator_pool import SimulatorPool
from jax_bridge.rollouts.simulator_process import MakeEnvironment, Reply
from jax_bridge.rollouts.slots import by_slot
from jax_bridge.rollouts.steps import PolicyRequest
from jax_bridge.rollouts.writing_thread import WritingThread
from jax_bridge.shards import EpisodeRecorder, EpisodeWriter, ShardLimits, open_writer


@dataclasses.dataclass(kw_only=True)
class Running:
    """The episode of one slot."""

    task: Task
    episode: int
    open_episode: EpisodeRecorder
    recorder: ShardRecorder
    instruction: str
    """What the policy is told."""
    request: PolicyRequest | None = None
    asked: tuple[PolicyRequest, PolicyOutput] | None = None
    """The slot's last call."""


class LockStepCollector:
    """Runs a `CollectPlan` with simulators in processes; resumes as `Collector` does.

    Args:
        environment: tells tasks and settings; it is never started.
        make_environment: makes a simulator in another process, so it must be picklable.
        policy: answers all slots, in one call where it can.
        plan: `plan.protocol.batch` is the number of slots.
        workers: processes.
        limits: when to start a new shard.
    """

    def __init__(
        self,
        environment: Environment,
        make_environment: MakeEnvironment,
        policy: Policy,
        plan: CollectPlan,
        *,
        workers: int,
        limits: ShardLimits | None = None,
    ) -> None:
        check_replan(policy, plan)
        if not 1 <= workers <= plan.protocol.batch:
            raise ValueError(
                f"`workers` must be 1 to {plan.protocol.batch}, the slots of a batch, but got "
                f"{workers}. Raise --batch for more."
            )
        self._environment, self._make = environment, make_environment
        self._policy, self._plan, self._workers = policy, plan, workers
        self._limits = limits or ShardLimits()

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> CollectReport:
        """Rolls all episodes out into the data set at `path`.

        Raises:
            ValueError: if another data set is there, or the suite has no demonstrator.
            OSError: if the disk is full or the address refuses; what is committed stays whole.
        """
        report = CollectReport()
        info = dataset_info(self._environment, self._policy, self._plan)
        protocol = self._plan.protocol

        def on_wait(waiting: int) -> None:
            report.waiting = waiting
            watcher.update(report)

        with contextlib.ExitStack() as stack:

            def new_writer() -> EpisodeWriter:
                return stack.enter_context(
                    open_writer(
                        path, info, self._limits, self._plan.image_format,
                        staging=staging, on_wait=on_wait,
                    )
                )  # fmt: skip

            first = new_writer()
            todo, report.skipped = missing_episodes(self._environment, self._plan, first)
            watcher.update(report)
            if not todo:
                return report
            queues = [collections.deque(queue) for queue in by_slot(todo, protocol.batch)]
            used = [slot for slot, queue in enumerate(queues) if queue]
            writers = {slot: first if slot == used[0] else new_writer() for slot in used}
            writing = WritingThread(pending=protocol.batch)
            stack.callback(writing.close)
            stack.callback(writing.forget)
            pool = stack.enter_context(
                SimulatorPool(
                    self._make, protocol, slots=protocol.batch, workers=self._workers
                )
            )  # fmt: skip
            _Run(self._policy, self._plan, pool, queues, writers, writing).go(report, watcher)
        return report


class _Run:
    """The state of one run."""

    def __init__(
        self,
        policy: Policy,
        plan: CollectPlan,
        pool: SimulatorPool,
        queues: Sequence[collections.deque[tuple[Task, int]]],
        writers: dict[int, EpisodeWriter],
        writing: WritingThread,
    ) -> None:
        self._policy, self._plan, self._pool = policy, plan, pool
        self._queues, self._writers, self._writing = queues, writers, writing
        self._running: dict[int, Running] = {}

    def go(self, report: CollectReport, watcher: Watcher) -> None:
        """Steps all slots until nothing is left to do."""
        for slot in self._writers:
            self._begin(slot)
        while self._running:
            # Slots that step wait for each other; a start, which may take long, holds nobody up.
            stepping = [slot for slot, running in self._running.items() if running.asked]
            for reply in self._pool.gather(stepping or list(self._running)):
                self._take(reply, report, watcher)
            self._call()
        self._writing.drain()

    def _begin(self, slot: int) -> None:
        """Starts the slot's next episode, if there is one."""
        if not self._queues[slot]:
            return
        task, episode = self._queues[slot].popleft()
        told = self._plan.told(task, episode)
        open_episode = self._writers[slot].episode(
            suite=task.suite,
            task_id=task.task_id,
            task_name=task.name,
            episode=episode,
            instruction=told,
            task_instruction=task.instruction,
            seed=self._plan.protocol.seed,
        )
        recorder = ShardRecorder(open_episode, self._policy, self._plan.images, self._writing)
        self._running[slot] = Running(
            task=task, episode=episode, open_episode=open_episode, recorder=recorder,
            instruction=told,
        )  # fmt: skip
        self._pool.begin(slot, task_id=task.task_id, episode=episode)

    def _take(self, reply: Reply, report: CollectReport, watcher: Watcher) -> None:
        """Keeps what a slot says; raises what ends the run."""
        if reply.refusal is not None:
            raise ValueError(reply.refusal)
        if reply.crash is not None:
            raise RuntimeError(reply.crash)
        running = self._running[reply.slot]
        if reply.record is not None:
            assert running.asked is not None
            running.recorder.record(Capture.of(reply.record, *running.asked))
        running.request = reply.request and reply.request.telling(running.instruction)
        if reply.request is None:
            self._end(reply.slot, running, reply, report)
            watcher.update(report)

    def _end(self, slot: int, running: Running, reply: Reply, report: CollectReport) -> None:
        del self._running[slot]
        self._writing.drain()
        if reply.outcome is None:
            running.open_episode.drop()
            message = reply.failure or "unknown"
            note_failure(self._writers[slot], running.task, running.episode, message, report)
        else:
            finish_episode(running.open_episode, reply.outcome)
            report.episodes += 1
            report.samples += running.recorder.samples
            report.successes += reply.outcome.success
        self._begin(slot)

    def _call(self) -> None:
        """One batched call for all slots that ask; every one is answered in its row."""
        asking = {slot: r.request for slot, r in self._running.items() if r.request is not None}
        if not asking:
            return
        rows: list[PolicyCall | None] = [None] * len(self._queues)
        for slot, request in asking.items():
            rows[slot] = PolicyCall(request.observation, request.noise_key)
        looks = any(request.looks for request in asking.values())
        outputs = infer_rows(self._policy, rows, self._plan.capture if looks else None)
        for slot, request in asking.items():
            output, running = outputs[slot], self._running[slot]
            assert output is not None
            running.asked, running.request = (request, output), None
            self._pool.act(slot, output.actions)


def infer_rows(
    policy: Policy, rows: Sequence[PolicyCall | None], capture: CaptureSpec | None
) -> list[PolicyOutput | None]:
    """One batched call, or one call a row where the policy knows no batches."""
    if isinstance(policy, BatchedPolicy):
        return policy.infer_batch(rows, capture=capture)
    return [
        row and policy.infer(row.observation, capture=capture, noise_key=row.noise_key)
        for row in rows
    ]
