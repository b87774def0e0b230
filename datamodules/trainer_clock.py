"""What a loader must know of Lightning's trainer, which counts epochs and batches."""

from typing import Any

import lightning.pytorch as pl


class TrainerClock:
    """Reads, and for a fit that goes on sets right, the trainer's counters.

    Args:
        data: the data module, whose trainer is asked once it has one.
    """

    def __init__(self, data: pl.LightningDataModule) -> None:
        self._data = data

    @property
    def _fit_loop(self) -> Any:
        trainer = self._data.trainer
        return None if trainer is None else trainer.fit_loop

    def epoch(self) -> int | None:
        """The epoch that is being trained; None without a trainer."""
        # Not `current_epoch`: a fit that goes on asks for batches before that one is put right.
        loop, trainer = self._fit_loop, self._data.trainer
        if loop is None or trainer is None:
            return None
        # Where cells train in several rounds, each round reads in the order of the first one.
        rounds = getattr(trainer.lightning_module, "rounds", None)
        first = 0 if rounds is None else rounds.first_epoch
        return int(loop.epoch_progress.current.processed) - first

    def unfinished(self) -> int:
        """1 while a batch is being trained with, else 0."""
        if self._fit_loop is None:
            return 0
        current = self._fit_loop.epoch_loop.batch_progress.current
        return int(current.ready - current.processed)

    def align(self, epoch: int, steps: int) -> None:
        """Sets the trainer's batch counter, which knows the run before, to this run's steps."""
        if epoch != self.epoch():
            return
        current = self._fit_loop.epoch_loop.batch_progress.current
        waiting = current.processed - current.completed
        current.ready = current.started = current.processed = steps
        current.completed = steps - waiting
