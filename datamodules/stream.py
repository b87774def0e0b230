"""The stages between a read plan and batches, as a webdataset pipeline.

    ReadPlan -> row numbers of a batch -> Reading (a LatentBatch, and what could not be read)

Order is decided by the plan alone: it is a pure function of seed and epoch, whatever the number
of workers or ranks. A whole batch is read at once, only the bytes of the chosen cells.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import get_worker_info

from datamodules.damaged_rows import DamagedRows, OnError
from datamodules.feature_source import FeatureSource
from datamodules.field_choice import as_tensor
from datamodules.latent_batch import LatentBatch
from datamodules.targets.target import Target
from jax_bridge.shards import DamagedShardError, ReadPlan, ShardDataset

Rows = Int64[np.ndarray, "_"]
READ_AHEAD = 2
"""Batches that an address is told of before they are read."""
MOST_SPARES = 32
"""Spare rows that are tried for one that cannot be read, before the data set is given up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowColumns:
    """What each row of the index says, as arrays over the whole index."""

    cluster: Int64[np.ndarray, " n"]
    task_id: Int64[np.ndarray, " n"]
    episode: Int64[np.ndarray, " n"]
    timestep: Int64[np.ndarray, " n"]
    control: Int64[np.ndarray, " n"]
    """The row whose target each row is given in the control task."""


class Progress:
    """Where an epoch starts, in shared memory: workers that outlive an epoch learn the next."""

    def __init__(self) -> None:
        self._numbers: Int64[Tensor, " 2"] = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set(self, *, epoch: int, start: int) -> None:
        """Says which epoch comes, and how many rows of it are done already."""
        self._numbers[0], self._numbers[1] = epoch, start

    @property
    def epoch(self) -> int:
        """The epoch that is read."""
        return int(self._numbers[0])

    @property
    def start(self) -> int:
        """Rows of its order that were done before."""
        return int(self._numbers[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSource:
    """First stage: the row numbers of this worker's and rank's batches."""

    plan: ReadPlan
    batch_size: int
    training: bool
    """Whether an incomplete last step is left out where several ranks train together."""
    progress: Progress
    rank: int
    """Of the training process; a worker process does not know it."""
    world_size: int

    def __call__(self) -> Iterator[Rows]:
        """Yields the row numbers of one batch after another."""
        info = get_worker_info()
        yield from self.plan.batches(
            self.progress.epoch,
            self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            worker=info.id if info else 0,
            num_workers=info.num_workers if info else 1,
            drop_last=self.drop_last,
            start=self.progress.start,
        )

    @property
    def drop_last(self) -> bool:
        """Whether steps are equal on all ranks."""
        return self.training and self.world_size > 1

    def steps(self, start: int = 0) -> int:
        """Batches an epoch on this rank, over all workers."""
        return self.plan.steps(
            self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=self.drop_last,
            start=start,
        )


class Reading(NamedTuple):
    """What comes out of a worker for one step."""

    batch: LatentBatch | None
    """None where all rows are damaged."""
    damaged: dict[int, str]
    """Rows that were found damaged in this step, and why."""
    failure: str = ""
    """Why the worker ended, as text: not every exception travels between processes."""


class BatchReader:
    """Reads the cells, the targets and the metadata of a batch of rows."""

    def __init__(
        self,
        dataset: ShardDataset,
        *,
        sources: Sequence[FeatureSource],
        target: Target,
        columns: RowColumns,
    ) -> None:
        # Workers get this one, not its path: row numbers mean nothing in an index written anew.
        self.dataset = dataset
        self.sources = tuple(sources)
        self.target = target
        self.columns = columns

    def read_ahead(self, rows: Rows) -> None:
        """Says that these rows are read soon; of an address they are fetched meanwhile."""
        self.dataset.read_ahead(rows)

    def features(self, rows: Rows) -> Sequence[Float[Tensor, "b _c _d"]]:
        """Reads the features of each source."""
        return tuple(source.read(self.dataset, rows) for source in self.sources)

    def read(self, rows: Rows) -> LatentBatch:
        """Reads one batch."""
        columns = self.columns
        return LatentBatch(
            features=self.features(rows),
            targets=as_tensor(self.target.values(self.dataset, rows)),
            control_targets=as_tensor(self.target.values(self.dataset, columns.control[rows])),
            clusters=as_tensor(columns.cluster[rows]),
            rows=as_tensor(rows),
            task_id=as_tensor(columns.task_id[rows]),
            episode=as_tensor(columns.episode[rows]),
            timestep=as_tensor(columns.timestep[rows]),
        )


def announced(stream: Iterator[Rows], read_ahead: Callable[[Rows], None]) -> Iterator[Rows]:
    """Passes rows on, each batch after it was said which ones follow it."""
    waiting: collections.deque[Rows] = collections.deque()
    for rows in stream:
        read_ahead(rows)
        waiting.append(rows)
        if len(waiting) > READ_AHEAD:
            yield waiting.popleft()
    yield from waiting


class ReadBatches:
    """Second stage: from row numbers to readings, one a step.

    Args:
        reader: reads a batch of rows.
        source: the stage before, whose plan gives spare rows while training.
        on_error: `skip` replaces a damaged sample by another one while training, so that steps
            stay equal, and leaves it out of an evaluation.
    """

    def __init__(self, reader: BatchReader, source: PlanSource, on_error: OnError) -> None:
        self.reader = reader
        self.source = source
        self.on_error = on_error
        self._damaged = DamagedRows()

    def __call__(self, stream: Iterator[Rows]) -> Iterator[Reading]:
        """Yields a reading for each array of row numbers; a worker ends with what went wrong."""
        for rows in announced(stream, self.reader.read_ahead):
            known = set(self._damaged)
            try:
                batch = self.read(rows)
            except (ValueError, OSError) as error:
                if get_worker_info() is None:
                    raise
                yield Reading(None, {}, str(error))
                return
            new = {row: why for row, why in self._damaged.items() if row not in known}
            yield Reading(batch, new)

    def read(self, rows: Rows) -> LatentBatch | None:
        """Reads one batch; None where nothing of it is left.

        Raises:
            ValueError: if a sample is damaged, or too many are to find spare ones.
        """
        if self.on_error == "raise":
            return self.reader.read(rows)
        if not self.source.training:
            kept = rows[~self._damaged.among(rows)]
            batch = self._attempt(kept)
            return batch or self._attempt(kept[~self._damaged.among(kept)])
        return self._read_with_spares(rows)

    def _attempt(self, rows: Rows) -> LatentBatch | None:
        """Reads rows that are not known to be damaged; where some are, notes which."""
        if len(rows) == 0 or self._damaged.among(rows).any():
            return None
        try:
            return self.reader.read(rows)
        except DamagedShardError:
            if not self._damaged.find(self.reader.read, rows).any():
                raise  # each can be read, but not together
            return None

    def _read_with_spares(self, rows: Rows) -> LatentBatch:
        chosen = rows.copy()
        for attempt in range(MOST_SPARES):
            batch = self._attempt(chosen)
            if batch is not None:
                return batch
            for place in np.flatnonzero(self._damaged.among(chosen)):
                chosen[place] = self.source.plan.spare(
                    int(rows[place]), self.source.progress.epoch, attempt
                )
        raise ValueError(
            f"`on_error` must be raise for data that is mostly damaged, but got skip, and "
            f"{len(self._damaged)} of {len(self.source.plan)} training samples cannot be read. "
            f"`vla-lens shards verify {self.reader.dataset.path}` names the places."
        )
