"""Shards of what clients ask: one writer an open episode, since a writer takes one at a time."""

import dataclasses
import logging

from jax_bridge.serving.client_words import SUITE, EpisodeName
from jax_bridge.shards import (
    DatasetInfo,
    EpisodeId,
    EpisodeRecorder,
    EpisodeWriter,
    ImageFormat,
    ShardLimits,
    open_writer,
)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class ServedReport:
    """What was written; grows while the server runs."""

    episodes: int = 0
    samples: int = 0
    dropped: int = 0
    """Episodes with a name that their client never ended."""


@dataclasses.dataclass(kw_only=True)
class OpenEpisode:
    """An episode and the writer that is busy with it."""

    id: EpisodeId
    recorder: EpisodeRecorder
    writer: EpisodeWriter
    samples: int = 0


class ServedEpisodes:
    """Opens and ends episodes of a data set; all calls must come from one thread.

    Raises:
        ValueError: if another data set is at `path`.
        OSError: if it cannot be written.
    """

    def __init__(
        self,
        path: str,
        info: DatasetInfo,
        *,
        limits: ShardLimits | None = None,
        images: ImageFormat | None = None,
    ) -> None:
        self._path, self._info, self._limits, self._images = path, info, limits, images
        self.report = ServedReport()
        self._open: dict[EpisodeId, OpenEpisode] = {}
        first = self._new_writer()
        self._idle: list[EpisodeWriter] = [first]
        self._known = {EpisodeId(*episode) for episode in first.committed}
        numbers = [episode.task_id for episode in self._known if episode.suite == SUITE]
        self._connections = max(numbers, default=-1) + 1

    def connection(self) -> int:
        """A number for a new connection: the task of the episodes that it does not name."""
        self._connections += 1
        return self._connections - 1

    def begin(self, name: EpisodeName, instruction: str) -> OpenEpisode:
        """Begins an episode.

        Raises:
            ValueError: if it is there already.
            OSError: if the disk refuses.
        """
        identity = EpisodeId(name.suite, name.task_id, name.episode)
        if identity in self._known or identity in self._open:
            raise ValueError(
                f"`episode` must be new, but {identity} is already in {self._path}. Count on, or "
                "leave it out."
            )
        writer = self._idle.pop() if self._idle else self._new_writer()
        recorder = writer.episode(
            suite=name.suite,
            task_id=name.task_id,
            task_name=name.task_name,
            episode=name.episode,
            instruction=instruction,
            task_instruction=name.task_instruction,
        )
        episode = OpenEpisode(id=identity, recorder=recorder, writer=writer)
        self._open[identity] = episode
        return episode

    def finish(
        self,
        episode: OpenEpisode,
        *,
        success: bool | None = None,
        success_at_end: bool | None = None,
        episode_length: int | None = None,
    ) -> None:
        """Makes an episode durable; it becomes readable when its shard is committed."""
        try:
            episode.recorder.finish(
                success=success, success_at_end=success_at_end, episode_length=episode_length
            )
        except BaseException:
            self.drop(episode)
            raise
        self._release(episode)
        self._known.add(episode.id)
        self.report.episodes += 1
        self.report.samples += episode.samples

    def drop(self, episode: OpenEpisode) -> None:
        """Forgets an episode."""
        episode.recorder.drop()
        self._release(episode)
        self.report.dropped += 1

    def commit(self) -> None:
        """Makes everything that ended readable; does nothing while an episode is open."""
        if self._open:
            return
        writers, self._idle = self._idle, []
        for writer in writers:
            writer.close()

    def close(self) -> None:
        """Forgets open episodes and commits the others."""
        for episode in list(self._open.values()):
            self.drop(episode)
        self.commit()

    def _release(self, episode: OpenEpisode) -> None:
        if self._open.pop(episode.id, None) is not None:
            self._idle.append(episode.writer)

    def _new_writer(self) -> EpisodeWriter:
        return open_writer(self._path, self._info, self._limits, self._images)
