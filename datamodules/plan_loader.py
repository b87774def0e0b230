"""`PlanLoader`: batches in the order of a read plan, with a position that can be saved."""

import multiprocessing
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import webdataset as wds
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from datamodules.damaged_rows import DamagedRows, OnError
from datamodules.fit_clock import FitClock
from datamodules.latent_batch import LatentBatch
from datamodules.stream import BatchReader, PlanSource, Progress, ReadBatches, Reading
from jax_bridge.shards import ReadPlan, ReadPosition


def rank_and_world_size() -> tuple[int, int]:
    """This process's place among those that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class PlanLoader:
    """Batches of one epoch after another, read here or by worker processes.

    The position counts what was handed over to the training loop: what workers have read ahead
    is not done. Workers start by forkserver, never by fork, which is unsafe once threads run.

    Args:
        plan: the order.
        reader: reads a batch of rows.
        batch_size: samples a batch and rank.
        num_workers: processes that read; 0 reads here.
        on_error: whether damaged samples end the reading or are skipped and noted.
        clock: of who trains; None reads for an evaluation.
        damaged: where damaged samples are noted.
        alone: reads every sample here, even if several ranks train together.
    """

    def __init__(
        self,
        plan: ReadPlan,
        reader: BatchReader,
        *,
        batch_size: int,
        num_workers: int = 0,
        on_error: OnError = "raise",
        clock: FitClock | None = None,
        damaged: DamagedRows | None = None,
        alone: bool = False,
    ) -> None:
        rank, world_size = (0, 1) if alone else rank_and_world_size()
        self._clock = clock
        self._damaged = DamagedRows() if damaged is None else damaged
        self._source = PlanSource(
            plan=plan, batch_size=batch_size, training=clock is not None, progress=Progress(),
            rank=rank, world_size=world_size,
        )  # fmt: skip
        self._resume: ReadPosition | None = None
        self._steps: int | None = None
        """Batches that this epoch has handed over; None before the first epoch."""
        self._readings = ReadBatches(reader, self._source, on_error)
        context = multiprocessing.get_context("forkserver") if num_workers else None
        if context is not None:
            context.set_forkserver_preload([__name__])  # torch is imported once for all workers
        self._loader = DataLoader(
            wds.DataPipeline(self._source, self._readings),  # pyright: ignore[reportAttributeAccessIssue]
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context=context,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        """Batches a whole epoch on this rank."""
        return self._source.steps() or int(self._must_pad)

    @property
    def _must_pad(self) -> bool:
        """Whether this rank has nothing to evaluate, but others have.

        Lightning leaves an evaluation without batches out, and so the meeting at its end, for
        which the other ranks would wait for ever. An empty batch makes it take part.
        """
        source = self._source
        return not source.training and source.world_size > 1 and source.steps() == 0

    def _empty_batch(self) -> LatentBatch:
        """A batch of no rows, in the shapes and types of one that can be read."""
        for row in self._source.plan.rows:
            batch = self._readings.read(row[None])
            if batch is not None:
                return LatentBatch(*tree_map(lambda values: values[:0], tuple(batch)))
        raise ValueError("`path` must hold samples that can be read, but none of a split can.")

    def __iter__(self) -> Iterator[LatentBatch]:
        """Yields the batches of the epoch that is current when the first one is asked for.

        Raises:
            ValueError: if a sample cannot be read; names the place.
        """
        self._begin_epoch()
        if self._must_pad:
            yield self._empty_batch()
        for reading in self._loader:
            batch = self._batch_of(reading)
            self._steps = (self._steps or 0) + 1
            if batch is not None:
                yield batch

    def _begin_epoch(self) -> None:
        """Goes on in the epoch of the loaded position, if that is current, else starts anew."""
        resume, self._resume = self._resume, None
        epoch = self._clock.epoch() if self._clock else 0
        if epoch is None:
            epoch = resume.epoch if resume else 0
        start = resume.start_in(self._source.plan) if resume and resume.epoch == epoch else 0
        self._source.progress.set(epoch=epoch, start=start)
        self._steps = 0

    def _batch_of(self, reading: Reading) -> LatentBatch | None:
        if reading.failure:
            raise ValueError(reading.failure)
        self._damaged.update(reading.damaged)
        return reading.batch

    # ------------------------------------------------------------------ the position

    @property
    def position(self) -> ReadPosition | None:
        """How far the epoch is read; None before the first one."""
        if self._resume is not None or self._steps is None:
            return self._resume
        source, start = self._source, self._source.progress.start
        unfinished = self._clock.unfinished() if self._clock else 0
        steps = max(0, self._steps - unfinished)
        done = start + steps * source.batch_size * source.world_size
        if steps == source.steps(start):
            done = len(source.plan)  # what is left over belongs to no step
        return ReadPosition.of_plan(
            source.plan, epoch=source.progress.epoch, done=min(done, len(source.plan))
        )

    def state_dict(self) -> dict[str, int]:
        """The position in plain numbers; Lightning puts it into its checkpoints."""
        position = self.position
        return {} if position is None else position.to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Lets the next epoch that is read start where another reading ended.

        That one may have had other numbers of workers and ranks, and another batch size.

        Raises:
            ValueError: if the position lies inside an epoch of another plan.
        """
        if not state:
            return
        position = ReadPosition.from_json(state)
        left = self._source.steps(position.start_in(self._source.plan))
        if self._clock is not None:
            self._clock.align(position.epoch, len(self) - left)
        self._resume = position
