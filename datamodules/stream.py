"""The stages between a read plan and batches, as a webdataset pipeline.

    ReadPlan -> row numbers of a batch -> LatentBatch

Order is decided by the plan alone: it is a pure function of seed and epoch, whatever the number
of workers or ranks. A whole batch is read at once, only the bytes of the chosen cells.
"""

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator

import numpy as np
import torch
import webdataset as wds
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from datamodules.field_choice import FieldChoice, as_tensor
from datamodules.latent_batch import LatentBatch
from datamodules.targets.target import Target
from jax_bridge.shards import ReadPlan, ShardDataset, open_dataset

Rows = Int64[np.ndarray, "_"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowColumns:
    """What each row of the index says, as arrays over the whole index."""

    cluster: Int64[np.ndarray, " n"]
    task_id: Int64[np.ndarray, " n"]
    episode: Int64[np.ndarray, " n"]
    timestep: Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSource:
    """First stage: the row numbers of this worker's and rank's batches."""

    plan: ReadPlan
    batch_size: int
    equal_steps: bool
    """Whether an incomplete last step is left out where several ranks train together."""
    epoch: Tensor
    """One integer in shared memory, so that workers that outlive an epoch know the next."""

    def __call__(self) -> Iterator[Rows]:
        """Yields the row numbers of one batch after another."""
        info = get_worker_info()
        rank, world_size = rank_and_world_size()
        yield from self.plan.batches(
            int(self.epoch),
            self.batch_size,
            rank=rank,
            world_size=world_size,
            worker=info.id if info else 0,
            num_workers=info.num_workers if info else 1,
            drop_last=self.equal_steps and world_size > 1,
        )

    def __len__(self) -> int:
        """Batches an epoch on this rank, over all workers."""
        rank, world_size = rank_and_world_size()
        drop_last = self.equal_steps and world_size > 1
        places = {"rank": rank, "world_size": world_size}
        return sum(1 for _ in self.plan.batches(0, self.batch_size, drop_last=drop_last, **places))


def rank_and_world_size() -> tuple[int, int]:
    """This process's place among those that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadFailure:
    """What went wrong in a worker, as text: not every exception travels between processes."""

    message: str


class BatchReader:
    """Second stage: reads the cells, the targets and the metadata of a batch of rows."""

    def __init__(
        self, path: str, *, field: FieldChoice, target: Target, columns: RowColumns
    ) -> None:
        self.path = path
        self.field = field
        self.target = target
        self.columns = columns
        self._dataset: ShardDataset | None = None

    def __getstate__(self) -> dict[str, object]:
        """A worker opens the data set itself: open files do not travel."""
        return {**self.__dict__, "_dataset": None}

    @property
    def dataset(self) -> ShardDataset:
        """The data set, opened when first needed."""
        if self._dataset is None:
            self._dataset = open_dataset(self.path)
        return self._dataset

    def __call__(self, stream: Iterator[Rows]) -> Iterator[LatentBatch | ReadFailure]:
        """Yields a batch for each array of row numbers; a worker ends with what went wrong."""
        for rows in stream:
            try:
                yield self.read(rows)
            except (ValueError, OSError) as error:
                if get_worker_info() is None:
                    raise
                yield ReadFailure(message=str(error))
                return

    def read(self, rows: Rows) -> LatentBatch:
        """Reads one batch."""
        columns = self.columns
        return LatentBatch(
            features=self.field.read(self.dataset, rows),
            targets=as_tensor(self.target.values(self.dataset, rows)),
            clusters=as_tensor(columns.cluster[rows]),
            rows=as_tensor(rows),
            task_id=as_tensor(columns.task_id[rows]),
            episode=as_tensor(columns.episode[rows]),
            timestep=as_tensor(columns.timestep[rows]),
        )


class PlanLoader:
    """Batches of one epoch after another, read here or by worker processes.

    Workers start by forkserver, never by fork, which is unsafe once threads run.
    """

    def __init__(
        self,
        plan: ReadPlan,
        reader: BatchReader,
        *,
        batch_size: int,
        num_workers: int,
        equal_steps: bool,
        current_epoch: Callable[[], int],
    ) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._current_epoch = current_epoch
        source = PlanSource(
            plan=plan, batch_size=batch_size, equal_steps=equal_steps, epoch=self._epoch
        )
        self._length = len(source)
        context = multiprocessing.get_context("forkserver") if num_workers else None
        if context is not None:
            context.set_forkserver_preload([__name__])  # torch is imported once for all workers
        self._loader = DataLoader(
            wds.DataPipeline(source, reader),  # pyright: ignore[reportAttributeAccessIssue]
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context=context,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        """Batches an epoch on this rank."""
        return self._length

    def __iter__(self) -> Iterator[LatentBatch]:
        """Yields the batches of the epoch that is current now.

        Raises:
            ValueError: if a sample cannot be read; names the place.
        """
        self._epoch.fill_(self._current_epoch())
        return map(whole_batch, iter(self._loader))


def whole_batch(batch: LatentBatch | ReadFailure) -> LatentBatch:
    """Passes a batch on, and raises what went wrong in a worker.

    Raises:
        ValueError: with the worker's message.
    """
    if isinstance(batch, ReadFailure):
        raise ValueError(batch.message)
    return batch
