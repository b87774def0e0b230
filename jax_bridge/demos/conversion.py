"""Episode files to a data set of demonstrations: one sample a frame, with its action chunk.

Letters: t steps of an episode; a action; s state; h, w height and width.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jax_bridge.demos.chunks import action_chunk, check_horizon
from jax_bridge.demos.description import ENTRY, Demonstrations
from jax_bridge.demos.placing import PlacedEpisode, episodes_digest, place_episodes
from jax_bridge.episodes import EpisodeInfo, EpisodeReader, EpisodeReadError, open_episode
from jax_bridge.policies.images import resize_with_pad
from jax_bridge.shards import (
    DatasetInfo,
    EpisodeWriter,
    ImageFormat,
    ShardLimits,
    open_writer,
    sample_key,
)

FRAMES_AT_ONCE = 16
"""Frames of a camera that are decoded together."""
OUR_CAMERAS = ("base", "left_wrist", "right_wrist")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """What is made of the episodes."""

    horizon: int
    """Actions a chunk."""
    suite: str = "demos"
    """First word of every key."""
    instruction: str | None = None
    """What the robot was told, for episodes that do not say."""
    cameras: tuple[str, ...] = OUR_CAMERAS
    """Cameras that are kept, of those that an episode has."""
    image_size: int | None = None
    """Height and width to which frames are scaled with black borders; None keeps them."""
    images: ImageFormat | None = dataclasses.field(default_factory=ImageFormat)
    """How frames are stored; None leaves them out."""
    stride: int = 1
    """Every how many steps a frame is kept."""
    retry_errors: bool = False
    """Whether episodes that could not be read before are tried again."""

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        sample_key(self.suite, 0, 0, 0)
        for name in ("image_size", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be positive, but got {value}.")


@dataclasses.dataclass(kw_only=True)
class ConversionReport:
    """What a conversion did; grows while it runs."""

    skipped: int = 0
    """Episodes that were there already."""
    episodes: int = 0
    samples: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    """One line an episode that could not be read."""


@runtime_checkable
class Watcher(Protocol):
    """Is told how the conversion goes (a progress bar)."""

    def update(self, report: ConversionReport) -> None:
        """Called at the start and after every episode."""
        ...


class Converter:
    """Writes a data set; what is committed already is skipped, so that it resumes."""

    def __init__(
        self,
        episodes: Sequence[EpisodeInfo],
        plan: ConversionPlan,
        *,
        limits: ShardLimits | None = None,
    ) -> None:
        """Numbers the episodes: tasks by instruction, episodes inside a task, in their order.

        Raises:
            ValueError: if there are none, one has no instruction, or their sizes differ.
        """
        self._plan = plan
        self._limits = limits or ShardLimits()
        self._sizes = _sizes(episodes, plan)
        self._placed = place_episodes(episodes, plan.instruction)

    @property
    def total(self) -> int:
        """How many episodes there are."""
        return len(self._placed)

    def info(self) -> DatasetInfo:
        """What `dataset.json` says; other files make another fingerprint."""
        plan = self._plan
        environment = {
            "name": plan.suite,
            "layouts": sorted({placed.info.layout for placed in self._placed}),
            "episodes_digest": episodes_digest(self._placed),
            "image_size": plan.image_size,
            "stride": plan.stride,
            ENTRY: self._sizes.to_json(),
        }
        return DatasetInfo(fields={}, capture={}, model={}, environment=environment, seed=0)

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> ConversionReport:
        """Writes all episodes into the data set at `path`.

        Raises:
            ValueError: if another data set is there.
            OSError: if the disk is full or the address refuses; what is committed stays whole.
        """
        report = ConversionReport()
        images = self._plan.images or ImageFormat()
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

    def _episode(
        self, writer: EpisodeWriter, placed: PlacedEpisode, report: ConversionReport
    ) -> None:
        try:
            samples = self._write(writer, placed)
        except EpisodeReadError as error:
            writer.record_error(
                suite=self._plan.suite, task_id=placed.task_id, episode=placed.number,
                message=str(error),
            )  # fmt: skip
            report.errors.append(str(error))
            return
        report.episodes += 1
        report.samples += samples

    def _write(self, writer: EpisodeWriter, placed: PlacedEpisode) -> int:
        info = placed.info
        with (
            open_episode(info) as reader,
            writer.episode(
                suite=self._plan.suite, task_id=placed.task_id, episode=placed.number,
                task_name=placed.instruction, instruction=placed.instruction,
                task_instruction=placed.instruction,
            ) as episode,
        ):  # fmt: skip
            actions, states = reader.actions(), reader.state()
            steps = range(0, info.length, self._plan.stride)
            for step, images in zip(steps, self._frames(reader, steps), strict=True):
                chunk, padding = action_chunk(actions, step, self._plan.horizon)
                episode.append(
                    timestep=step, state=None if states is None else states[step],
                    actions=chunk, executed=actions[step], action_is_pad=padding, images=images,
                    extra={"source": placed.source},
                )  # fmt: skip
            episode.finish(success=info.success, episode_length=info.length)
        return len(steps)

    def _frames(
        self, reader: EpisodeReader, steps: range
    ) -> Iterator[Mapping[str, UInt8[np.ndarray, "h w 3"]]]:
        size = self._plan.image_size
        for first in range(0, len(steps), FRAMES_AT_ONCE):
            some = steps[first : first + FRAMES_AT_ONCE]
            seen = {camera: reader.frames(camera, some) for camera in self._sizes.cameras}
            for i in range(len(some)):
                yield {
                    camera: frames[i] if size is None else resize_with_pad(frames[i], size, size)
                    for camera, frames in seen.items()
                }


def _sizes(episodes: Sequence[EpisodeInfo], plan: ConversionPlan) -> Demonstrations:
    if not episodes:
        raise ValueError(
            "`demos` must hold at least one episode that can be read, but all were passed over."
        )
    found: dict[Demonstrations, EpisodeInfo] = {}
    for info in episodes:
        has = {camera.name for camera in info.cameras}
        cameras = tuple(name for name in plan.cameras if name in has and plan.images is not None)
        sizes = Demonstrations(
            horizon=plan.horizon, action_dim=info.action_dim, state_dim=info.state_dim,
            cameras=cameras,
        )  # fmt: skip
        found.setdefault(sizes, info)
    if len(found) > 1:
        (a, first), (b, second), *_ = found.items()
        raise ValueError(
            f"`demos` must be of one robot, but {first.source} has {_words(a)}, and "
            f"{second.source} has {_words(b)}. Convert them into two data sets."
        )
    return next(iter(found))


def _words(sizes: Demonstrations) -> str:
    cameras = ", ".join(sizes.cameras) or "none"
    return f"{sizes.action_dim} action and {sizes.state_dim or 0} state numbers, cameras {cameras}"
