"""Batches for the trainer, read by grain's threads or workers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from jax_bridge.ki.data.mixture import MixtureSource
from jax_bridge.ki.data.samples import SampleMaker, as_batch
from jax_bridge.ki.training.stream import DataFacts, HostBatch

LEFT_OUT = ("fast_left_out", "text_left_out")
"""Columns that say whose targets did not fit."""
SourceAt = Callable[[int], MixtureSource]
"""The source, from a step on."""


class SampleStream:
    """An endless `BatchStream` of demonstrations, and of questions with answers.

    Args:
        source_at: what is read.
        maker: how a sample is prepared.
        facts: of the data.
        action_dims: dimensions that the robot has.
        threads: that read and prepare, in each worker.
        workers: processes; 0 for threads of this one.
    """

    def __init__(
        self,
        source_at: SourceAt,
        maker: SampleMaker,
        facts: DataFacts,
        *,
        action_dims: np.ndarray,
        threads: int = 4,
        workers: int = 0,
    ) -> None:
        self._source_at, self._maker, self._facts = source_at, maker, facts
        self._action_dims = action_dims
        self._threads, self._workers = threads, workers
        self._step = 0
        self._left_out = dict.fromkeys(LEFT_OUT, 0)
        self._batches: Any = None

    @property
    def facts(self) -> DataFacts:
        """What a checkpoint must know of the data."""
        return self._facts

    def __next__(self) -> HostBatch:
        """The next batch."""
        if self._batches is None:
            self._batches = iter(self._pipeline())
        rows = next(self._batches)
        self._step += 1
        self._left_out = {
            name: before + int(np.sum(rows.get(name, 0))) for name, before in self._left_out.items()
        }
        position = {"step": self._step, **self._left_out}
        counts = {name: count for name, count in self._left_out.items() if name in rows}
        keys = tuple(str(key) for key in rows["key"])
        return HostBatch(as_batch(rows, self._action_dims), keys, position, counts)

    def _pipeline(self) -> Any:
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        source = grain.MapDataset.source(self._source_at(self._step))
        batches = source.map(self._maker).to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain's workers read flags of its own
                flags.FLAGS.mark_as_parsed()
            return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return batches

    def restore(self, position: Mapping[str, Any]) -> None:
        """Goes on behind the batch that carried this position."""
        self.close()
        self._step = int(position["step"])
        self._left_out = {name: int(position.get(name, 0)) for name in LEFT_OUT}

    def close(self) -> None:
        """Stops threads and workers."""
        if self._batches is not None and hasattr(self._batches, "close"):
            self._batches.close()
        self._batches = None


class HeldOutSamples:
    """The first batches of a data set that is not trained on; the same at every look.

    Args:
        source: what is read.
        maker: how a sample is prepared.
        batches: how many.
        action_dims: dimensions that the robot has.
    """

    def __init__(
        self,
        source: MixtureSource,
        maker: SampleMaker,
        *,
        batches: int,
        action_dims: np.ndarray,
    ) -> None:
        self._source, self._maker = source, maker
        self._batches, self._action_dims = batches, action_dims

    def __iter__(self) -> Iterator[HostBatch]:
        for number in range(self._batches):
            rows = self._maker(self._source[number])
            keys = tuple(str(key) for key in rows["key"])
            yield HostBatch(as_batch(rows, self._action_dims), keys, {})
