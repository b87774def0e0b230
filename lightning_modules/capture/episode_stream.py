"""Writing what is captured, in a thread of its own: the model need not wait for the disk."""

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable

import numpy as np

from datamodules.frames.frame_batch import FrameSample
from jax_bridge.shards import (
    DatasetInfo,
    EpisodeId,
    EpisodeRecorder,
    EpisodeWriter,
    FieldSpec,
    ShardLimits,
)
from lightning_modules.capture.captured_batch import CapturedBatch, field_specs

_log = logging.getLogger(__name__)
WAITING = 4
"""Batches that may wait for the disk."""
NAMED = 5
"""Samples with NaN or Inf that are named."""


@dataclasses.dataclass(kw_only=True)
class NotFinite:
    """Samples with NaN or Inf."""

    samples: int = 0
    numbers: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def note(self, key: str, numbers: int) -> None:
        """Counts one sample."""
        self.samples += 1
        self.numbers += numbers
        if len(self.first) < NAMED:
            self.first.append(f"{key} ({numbers})")


class EpisodeStream:
    """Takes batches in the order of their episodes; commits whole episodes.

    Args:
        path: folder of the data set.
        info: how it is made, given its fields, which the first batch tells.
        limits: when a new shard begins.
    """

    def __init__(
        self,
        path: str,
        info: Callable[[dict[str, FieldSpec]], DatasetInfo],
        limits: ShardLimits | None = None,
    ) -> None:
        self._path, self._info, self._limits = path, info, limits
        self.written = 0
        """Samples so far."""
        self.not_finite = NotFinite()
        self._writer: EpisodeWriter | None = None
        self._recorder: EpisodeRecorder | None = None
        self._error: BaseException | None = None
        self._queue: queue.Queue[CapturedBatch | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="capture-writer", daemon=True)
        self._thread.start()

    def put(self, batch: CapturedBatch) -> None:
        """Hands a batch over; waits only where the disk is far behind.

        Raises:
            ValueError: if an earlier batch could not be written: the fields do not fit.
            OSError: if the disk refused.
        """
        self._raise_error()
        self._queue.put(batch)

    def close(self) -> None:
        """Waits for the disk and commits; an episode in flight is dropped.

        Raises:
            ValueError: as `put`.
            OSError: as `put`.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        ended = False
        try:
            while (batch := self._queue.get()) is not None:
                self._write(batch)
            ended = True
            self._close_writer()
        except BaseException as error:
            self._error = error  # raised by the next `put`, or by `close`
            self._close_writer()
            while not ended:  # whoever puts must not wait for ever
                ended = self._queue.get() is None

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as error:
            if self._error is None:
                raise
            # The first error is the one to show.
            _log.warning("%s", error)

    def _write(self, batch: CapturedBatch) -> None:
        arrays = batch.arrays()
        if self._writer is None:
            self._writer = EpisodeWriter(self._path, self._info(field_specs(arrays)), self._limits)
        _check_shapes(arrays, self._writer.info.fields)
        counts = _not_finite(arrays, len(batch.samples))
        for row, sample in enumerate(batch.samples):
            self._append(sample, {n: a[row] for n, a in arrays.items()}, int(counts[row]))

    def _append(self, sample: FrameSample, latents: dict[str, np.ndarray], bad: int) -> None:
        identity = EpisodeId(sample.suite, sample.task_id, sample.episode)
        recorder = self._recorder_of(identity, sample)
        if recorder is None:
            return
        recorder.append(timestep=sample.timestep, latents=latents, extra={"not_finite": bad})
        self.written += 1
        if bad:
            self.not_finite.note(f"{identity}-s{sample.timestep:04d}", bad)
        if sample.last:
            recorder.finish(success=sample.success, episode_length=sample.episode_length)
            self._recorder = None

    def _recorder_of(self, identity: EpisodeId, sample: FrameSample) -> EpisodeRecorder | None:
        """The open episode; None where another writer has committed it in the meantime."""
        assert self._writer is not None
        if self._recorder is None and identity not in self._writer.committed:
            self._recorder = self._writer.episode(
                suite=sample.suite, task_id=sample.task_id, episode=sample.episode,
                task_name=sample.task_name, instruction=sample.instruction,
                task_instruction=sample.instruction, seed=sample.seed,
            )  # fmt: skip
        if self._recorder is not None:
            assert self._recorder.id == identity, "an episode's frames follow each other"
        return self._recorder


def _check_shapes(arrays: dict[str, np.ndarray], fields: dict[str, FieldSpec]) -> None:
    for name, array in arrays.items():
        if array.shape[1:] != fields[name].shape:
            raise ValueError(
                f"`pool` must be mean, last or max where prompts differ in length, but got tokens "
                f"for {name}, which has shape {fields[name].shape} here, {array.shape[1:]} there."
            )


def _not_finite(arrays: dict[str, np.ndarray], rows: int) -> np.ndarray:
    """How many numbers of each row are NaN or Inf."""
    counts = np.zeros(rows, np.int64)
    for array in arrays.values():
        if array.dtype.kind in "fV" or array.dtype.name == "bfloat16":
            counts += (~np.isfinite(array.astype(np.float32))).reshape(rows, -1).sum(1)
    return counts
