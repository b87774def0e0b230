"""Keeps a fit's place inside an epoch, so that it can be gone on with after a kill."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StepCheckpoint(pl.Callback):
    """Saves RUN/checkpoints/last.ckpt between the epochs' ends.

    A fit that is asked to end (SIGTERM) ends after a training batch, never inside a validation,
    whose half could not be gone on with.

    Args:
        every: training steps between two savings; None saves when asked to end alone.
    """

    def __init__(self, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"`save_every` must be positive, but got {every}.")
        self.every = every
        self._path: Path | None = None
        self._saved = -1
        self._asked_to_end = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finds the run folder, which rank 0 tells the others."""
        folder = trainer.log_dir
        self._path = None if folder is None else Path(folder) / "checkpoints" / "last.ckpt"

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves after so many steps; an epoch's last batch is left to its validation."""
        step = trainer.global_step
        if self.every is None or step % self.every or step == self._saved or trainer.is_last_batch:
            return
        self._save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the end off."""
        self._put_off(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Puts the end off."""
        self._put_off(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the end off."""
        self._put_off(trainer)

    def _put_off(self, trainer: pl.Trainer) -> None:
        if trainer.received_sigterm and trainer.state.fn == "fit":
            trainer._signal_connector.received_sigterm = False
            self._asked_to_end = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ends after this batch where the fit was asked to."""
        if self._asked_to_end:
            trainer._signal_connector.received_sigterm = True
            self._asked_to_end = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Saves when the fit is asked to end; after an error the state may be half a step."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        trial = trainer.fast_dev_run  # pyright: ignore[reportAttributeAccessIssue] - set late
        if self._path is not None and not trial:
            trainer.save_checkpoint(self._path)
            self._saved = trainer.global_step
