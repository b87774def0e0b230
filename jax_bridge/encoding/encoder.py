"""`Encoder`: recorded episodes to a data set of latents."""

import contextlib
from collections.abc import Sequence

import numpy as np

from jax_bridge.demos.placing import PlacedEpisode, place_episodes
from jax_bridge.encoding.frame_calls import EncodedFrame, encoded_frames
from jax_bridge.encoding.plan import EncodePlan, EncodeReport, Watcher, dataset_info
from jax_bridge.episodes import EpisodeInfo, EpisodeReadError, open_episode
from jax_bridge.policies.policy import Policy
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ShardLimits, open_writer


class Encoder:
    """Writes a data set; what is committed already is skipped, so that it resumes."""

    def __init__(
        self,
        episodes: Sequence[EpisodeInfo],
        policy: Policy,
        plan: EncodePlan,
        *,
        limits: ShardLimits | None = None,
    ) -> None:
        """Numbers the episodes: tasks by instruction, episodes inside a task, in their order.

        Raises:
            ValueError: if no frame is chosen, or an episode has no instruction.
        """
        self._policy, self._plan = policy, plan
        self._limits = limits or ShardLimits()
        self._placed = chosen_episodes(episodes, plan)

    @property
    def total(self) -> int:
        """How many episodes there are."""
        return len(self._placed)

    def info(self) -> DatasetInfo:
        """What `dataset.json` says."""
        return dataset_info(self._placed, self._policy, self._plan)

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> EncodeReport:
        """Encodes all episodes into the data set at `path`.

        Raises:
            ValueError: if another data set is there, or the policy cannot take these frames.
            OSError: if the disk is full or the address refuses; what is committed stays whole.
        """
        report = EncodeReport()
        images = self._plan.image_format
        with open_writer(path, self.info(), self._limits, images, staging=staging) as writer:
            done = set(writer.committed)
            done |= set() if self._plan.retry_errors else set(writer.errors)
            keys = [(self._plan.suite, p.task_id, p.number) for p in self._placed]
            todo = [p for p, key in zip(self._placed, keys, strict=True) if key not in done]
            report.skipped = len(keys) - len(todo)
            watcher.update(report)
            for placed in todo:
                self._episode(writer, placed, report)
                watcher.update(report)
        return report

    def _episode(self, writer: EpisodeWriter, placed: PlacedEpisode, report: EncodeReport) -> None:
        about = {"suite": self._plan.suite, "task_id": placed.task_id, "episode": placed.number}
        try:
            samples = self._write(writer, placed, about)
        except EpisodeReadError as error:
            writer.record_error(**about, message=str(error))
            report.errors.append(str(error))
            return
        report.episodes += 1
        report.samples += samples

    def _write(self, writer: EpisodeWriter, placed: PlacedEpisode, about: dict[str, object]) -> int:
        words, samples = placed.instruction, 0
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_episode(placed.info))
            episode = stack.enter_context(
                writer.episode(
                    **about,  # pyright: ignore[reportArgumentType] -- suite, task_id, episode
                    task_name=words, instruction=words, task_instruction=words,
                    seed=self._plan.seed,
                )
            )  # fmt: skip
            for frame in encoded_frames(self._policy, self._plan, placed, reader):
                episode.append(
                    timestep=frame.step, latents=frame.output.latents,
                    state=frame.observation.state, actions=frame.output.actions,
                    executed=frame.executed, images=self._seen(frame),
                    extra={"source": placed.source},
                )  # fmt: skip
                samples += 1
            episode.finish(success=placed.info.success, episode_length=placed.info.length)
        return samples

    def _seen(self, frame: EncodedFrame) -> dict[str, np.ndarray] | None:
        if self._plan.images == "none":
            return None
        return dict(self._policy.seen_images(frame.observation))


def chosen_episodes(episodes: Sequence[EpisodeInfo], plan: EncodePlan) -> list[PlacedEpisode]:
    """The episodes of which the plan wants a frame, with their numbers.

    Numbers are given before the choice, so that a plan does not change them.

    Raises:
        ValueError: if none is left, or one has no instruction.
    """
    placed = [one for one in place_episodes(episodes, plan.instruction) if len(plan.steps(one))]
    if not placed:
        raise ValueError(
            "`demos` must hold at least one episode that can be read and of which a frame is "
            f"wanted, but of {len(episodes)} there is none."
        )
    return placed
