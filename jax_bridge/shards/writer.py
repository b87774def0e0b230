"""`EpisodeWriter`: whole episodes into shards, safe against being killed at any moment."""

import dataclasses
import logging
import os
import types

from jax_bridge.shards.commit import CommittedEpisodes, commit_part
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.digest_thread import DigestThread
from jax_bridge.shards.episode_record import EpisodeRecord
from jax_bridge.shards.episode_recorder import EpisodeRecorder
from jax_bridge.shards.errors_file import append_error, read_errors
from jax_bridge.shards.file_layer import LOCAL_FILES, FileLayer, write_error
from jax_bridge.shards.index import write_index
from jax_bridge.shards.part import Part
from jax_bridge.shards.recovery import recover
from jax_bridge.shards.sample_key import EpisodeId, sample_key
from jax_bridge.shards.sample_members import ImageFormat

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardLimits:
    """When the writer starts a new shard."""

    shard_bytes: int = 512 * 2**20
    """Soft upper limit of one tar, in bytes; an episode is never cut."""

    def __post_init__(self) -> None:
        if self.shard_bytes <= 0:
            raise ValueError(f"`shard_bytes` must be positive, but got {self.shard_bytes}.")


class EpisodeWriter:
    """Writes a data set, or goes on writing one; several may write into one folder.

    Args:
        path: folder of the data set; made if it is not there.
        info: how every sample is made; must be that of the folder, if it has one.
        limits: when to start a new shard.
        images: how camera images are stored.
        files: the file layer; tests replace it.

    Raises:
        FingerprintError: if the folder holds another data set.
        ShardWriteError: if the folder cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: DatasetInfo,
        limits: ShardLimits | None = None,
        images: ImageFormat | None = None,
        files: FileLayer = LOCAL_FILES,
    ) -> None:
        self.info = info
        self._limits = limits or ShardLimits()
        self._images = images or ImageFormat()
        self._folder = DatasetFolder(path, files)
        self._shards = CommittedEpisodes(self._folder)
        self._part: Part | None = None
        self._recorder: EpisodeRecorder | None = None
        self._largest = 0
        try:
            self._open_folder()
        except OSError as error:
            raise write_error(error, self._folder.path) from error
        self._digests = DigestThread()
        self._closed = False

    def _open_folder(self) -> None:
        if self._folder.info_path.exists():
            self.info.require_same(self._folder.read_info(), self._folder.path)
        self._folder.create()
        with self._folder.lock():
            if self._folder.info_path.exists():
                self.info.require_same(self._folder.read_info(), self._folder.path)
            else:
                self._folder.write_info(self.info)
            recover(self._folder, self._shards)
            self.committed: set[tuple[str, int, int]] = set(self._shards.refresh())
        self.errors = set[tuple[str, int, int]](read_errors(self._folder)) - self.committed

    def episode(
        self,
        *,
        suite: str,
        task_id: int,
        episode: int,
        task_name: str | None = None,
        instruction: str | None = None,
        task_instruction: str | None = None,
        seed: int | None = None,
    ) -> EpisodeRecorder:
        """Begins an episode; use it in a `with` block.

        Args:
            suite: a word of letters, digits, underscores and hyphens.
            task_id: number of the task inside the suite.
            episode: number of the episode inside the task.
            task_name: the task's name.
            instruction: what the policy reads.
            task_instruction: the task's own instruction.
            seed: of this episode.

        Raises:
            ValueError: if an episode is open, or this one is already there.
            ShardWriteError: if the disk refuses.
        """
        identity = EpisodeId(suite, task_id, episode)
        sample_key(suite, task_id, episode, 0)
        if self._closed:
            raise ValueError("The writer is closed; make another one.")
        if self._recorder is not None:
            raise ValueError(
                f"`episode` must follow the end of {self._recorder.id}, but that one is open."
            )
        if identity in self.committed:
            raise ValueError(
                f"`episode` must be new, but {identity} is already in {self._folder.path}. Skip "
                "what `committed` holds."
            )
        metadata = {
            "suite": suite,
            "task_id": task_id,
            "task_name": task_name,
            "instruction": instruction,
            "task_instruction": task_instruction,
            "episode": episode,
            "seed": seed,
            "success": None,
            "success_at_end": None,
            "outcome": "unknown",
            "episode_length": None,
        }
        self._recorder = EpisodeRecorder(
            episode=identity,
            metadata=metadata,
            fields=self.info.fields,
            images=self._images,
            part=self._open_part(),
            digests=self._digests,
            on_end=self._end_episode,
        )
        return self._recorder

    def record_error(self, *, suite: str, task_id: int, episode: int, message: str) -> None:
        """Notes in `errors.jsonl` that an episode ended in an error and has no samples.

        Raises:
            ShardWriteError: if the disk refuses.
        """
        try:
            append_error(self._folder, EpisodeId(suite, task_id, episode), message)
        except OSError as error:
            raise write_error(error, self._folder.errors_path) from error
        self.errors.add(EpisodeId(suite, task_id, episode))

    def close(self) -> None:
        """Commits the shard at hand and writes the index; drops an episode in flight.

        Raises:
            ShardWriteError: if the disk refuses; finished episodes are then committed by the
                next writer.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._recorder is not None:
                self._recorder.drop()
            self._commit()
            self._write_index()
        except OSError as error:
            raise write_error(error, self._folder.path, len(self.committed)) from error
        finally:
            self._digests.close()

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OSError as failure:
            if error is None:
                raise
            # The first error is the one to show; the next writer commits what is journalled.
            _log.warning("%s", failure)

    def _open_part(self) -> Part:
        if self._part is None:
            try:
                with self._folder.lock():
                    self._part = Part(self._folder)
            except OSError as error:
                raise write_error(error, self._folder.path, len(self.committed)) from error
        return self._part

    def _end_episode(self, recorder: EpisodeRecorder, record: EpisodeRecord | None) -> None:
        assert recorder is self._recorder
        assert self._part is not None
        self._recorder = None
        last = self._part.episodes[-1] if self._part.episodes else None
        if record is None and last is not None and last.id == recorder.id:
            # Interrupted between the journal and here: the episode is finished all the same.
            record = last
        if record is None:
            try:
                self._part.cut(recorder.start)
            except OSError as error:
                _log.warning("%s", write_error(error, self._folder.path))
            return
        self.committed.add(record.id)
        self._largest = max(self._largest, record.end - record.start)
        if self._part.size + self._largest > self._limits.shard_bytes:
            try:
                self._commit()
            except OSError as error:
                raise write_error(error, self._folder.path, len(self.committed)) from error

    def _write_index(self) -> None:
        with self._folder.lock():
            write_index(self._folder)

    def _commit(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        try:
            # Most bytes reach the disk here, before others have to wait for the lock.
            part.send()
            with self._folder.lock():
                commit_part(self._folder, part, self._shards)
        except BaseException:  # Ctrl-C as well: the next writer must find the part free
            part.close()
            raise
