"""The samples of a read plan as a random-access source for grain.

    source = GrainSource(path, plan, choice, batch_size=32)
    batches = grain.MapDataset.source(source).batch(32).to_iter_dataset()

Order and share are those of the plan, so grain's own shuffling and sharding stay unused: place p
of the source is the p-th sample that this process reads. That is how `PlanLoader` reads, too, and
both save the same position. grain itself is not imported: its sources are a protocol.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.dataset import ShardDataset, open_dataset
from jax_bridge.shards.read_plan import ReadPlan
from jax_bridge.shards.read_position import ReadPosition
from jax_bridge.shards.sample_choice import SampleChoice


class GrainSource:
    """What one process reads, over some epochs.

    Args:
        path: the data set.
        plan: the order.
        choice: what is read of each sample.
        batch_size: samples a batch and process; batches themselves are grain's work.
        rank: of this process.
        world_size: processes that train together; more than one leave out the incomplete last
            step, so that all make equal steps.
        epochs: how many epochs follow each other.
        position: where another reading stood, of any number of processes and workers.

    Raises:
        ValueError: if a number is out of range, the position is one of another plan, or the data
            set lacks what is chosen.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: ReadPlan,
        choice: SampleChoice,
        *,
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        epochs: int = 1,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1 or epochs < 1 or not 0 <= rank < world_size:
            raise ValueError(
                "`batch_size` and `epochs` must be positive and `rank` lie in [0, world_size), "
                f"but got {batch_size}, {epochs} and {rank} of {world_size}."
            )
        self.path, self.plan, self.choice = os.fspath(path), plan, choice
        self._share = {"rank": rank, "world_size": world_size, "drop_last": world_size > 1}
        self._batch_size = batch_size
        begun = ReadPosition.from_json(position) if position else None
        self._first_epoch = begun.epoch if begun else 0
        self._start = begun.start_in(plan) if begun else 0
        self._first = self._samples(self._start)
        self._each = self._samples(0)
        self._length = self._first + (epochs - 1) * self._each
        self._rows: tuple[int, Int64[np.ndarray, " n"]] | None = None
        self._dataset: ShardDataset | None = None
        self._lock = threading.Lock()
        choice.check(self.dataset)

    def _samples(self, start: int) -> int:
        """Samples of this process in an epoch of which some rows are done."""
        shares = self.plan.batches(0, self._batch_size, start=start, **self._share)
        return sum(map(len, shares))

    def __getstate__(self) -> dict[str, Any]:
        """A worker process opens the data set itself."""
        return {**self.__dict__, "_dataset": None, "_lock": None, "_rows": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes up what was sent to a worker process."""
        self.__dict__ |= state
        self._lock = threading.Lock()

    @property
    def dataset(self) -> ShardDataset:
        """The data set, opened when first needed."""
        if self._dataset is None:
            self._dataset = open_dataset(self.path)
        return self._dataset

    def __len__(self) -> int:
        """Samples of this process, over all epochs."""
        return self._length

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Reads one sample; see `SampleChoice.read`.

        Raises:
            IndexError: if there is no such place.
            DamagedShardError: if the sample cannot be read; names the place.
        """
        return self._getitems([place])[0]

    def _getitems(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Reads several samples at once, as grain asks where it can."""
        # grain reads from many threads, and a data set has one table of what it knows.
        with self._lock:
            rows = np.asarray([self._row(int(place)) for place in places], np.int64)
            return self.choice.read(self.dataset, rows)

    def _row(self, place: int) -> int:
        epoch, offset = self._epoch_of(place)
        if self._rows is None or self._rows[0] != epoch:
            self._rows = (epoch, np.concatenate([*self._batches(epoch)]))
        return int(self._rows[1][offset])

    def _epoch_of(self, place: int) -> tuple[int, int]:
        if not 0 <= place < self._length:
            raise IndexError(f"`place` must lie in [0, {self._length}), but got {place}.")
        if place < self._first:
            return self._first_epoch, place
        later, offset = divmod(place - self._first, self._each)
        return self._first_epoch + 1 + later, offset

    def _batches(self, epoch: int) -> Iterator[Int64[np.ndarray, " b"]]:
        start = self._start if epoch == self._first_epoch else 0
        return self.plan.batches(epoch, self._batch_size, start=start, **self._share)

    def position(self, consumed: int) -> dict[str, int]:
        """Where the reading stands after so many of this process's samples; plain numbers.

        Args:
            consumed: samples that were trained with: grain's `next_index` before `batch`, or
                that times the batch size behind it. Whole batches count.

        Raises:
            ValueError: if there are not so many.
        """
        if not 0 <= consumed <= self._length:
            raise ValueError(f"`consumed` must lie in [0, {self._length}], but got {consumed}.")
        epoch, offset, start = self._first_epoch, consumed, self._start
        samples = self._first
        if consumed > self._first:
            later, offset = divmod(consumed - self._first - 1, self._each)
            epoch, offset, start = epoch + 1 + later, offset + 1, 0
            samples = self._each
        done = start + offset // self._batch_size * self._batch_size * self._share["world_size"]
        if offset == samples:
            done = len(self.plan)  # what is left over belongs to no step
        return ReadPosition.of_plan(self.plan, epoch=epoch, done=done).to_json()
