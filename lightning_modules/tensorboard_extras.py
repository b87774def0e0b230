"""What TensorBoard shows besides curves: settings against results, and latents as points.

Letters: n points, d width.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from datamodules.latent_batch import LatentBatch
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.metrics.cluster_sums import mean_over_samples

MOST_POINTS = 10_000
MOST_DIMENSIONS = 50
"""The projector gets the latents' main directions: it draws three at most, from a text file."""


def main_coordinates(points: Float[Tensor, "n d"]) -> Float[Tensor, "n _k"]:
    """Centred points along the directions in which they vary most."""
    centred = points.double() - points.double().mean(0)
    if centred.shape[1] <= MOST_DIMENSIONS:
        return centred.float()
    wide = centred.shape[1] > len(centred)
    sizes, found = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    sizes, found = sizes[-MOST_DIMENSIONS:].flip(0), found[:, -MOST_DIMENSIONS:].flip(1)
    # Of few points their products say the same: X v = u s.
    return (found * sizes.clamp(min=0).sqrt() if wide else centred @ found).float()


class TensorBoardExtras(pl.Callback):
    """Logs hyperparameters with the test's result, and the chosen cell's latents as points."""

    def __init__(self) -> None:
        self._points: list[Tensor] = []
        self._labels: list[list[str]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets points of an earlier test."""
        self._points, self._labels = [], []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the chosen cell's latents, up to the limit."""
        assert isinstance(pl_module, LinearProbe)
        assert isinstance(batch, LatentBatch)
        room = MOST_POINTS - sum(len(part) for part in self._points)
        if room <= 0 or not trainer.is_global_zero or not _loggers(trainer):
            return
        source, place = chosen_place(pl_module)
        self._points.append(batch.features[source][:room, place].float().cpu())
        classes = pl_module.spec.target.classes if pl_module.spec else ()
        columns = (batch.task_id, batch.episode, batch.timestep)
        for i, words in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            if i < room:
                label = classes[int(batch.targets[i])] if classes else ""
                self._labels.append([label, *map(str, words)])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes both."""
        assert isinstance(pl_module, LinearProbe)
        assert pl_module.evaluation is not None
        if not trainer.is_global_zero:
            return
        group, place = chosen_cell(pl_module)
        part = pl_module.evaluation.of(group)
        score = float(mean_over_samples(*part.score.compute())[place])
        for logger in _loggers(trainer):
            settings = {"target": pl_module.spec.target.name if pl_module.spec else ""}
            settings |= {name: str(value) for name, value in pl_module.hparams.items()}
            logger.log_hyperparams(settings, {f"test/chosen_{pl_module.objective.score}": score})
            if self._points:
                logger.experiment.add_embedding(
                    main_coordinates(torch.cat(self._points)), metadata=self._labels,
                    metadata_header=["target", "task", "episode", "timestep"], tag="chosen_cell",
                )  # fmt: skip


def chosen_cell(module: LinearProbe) -> tuple[int, int]:
    """The group, and the place in it, of the cell with the lowest validation loss."""
    losses = [
        (float(loss), number, place)
        for number, group in enumerate(module.probe_groups)
        if group.spec.is_main
        for place, loss in enumerate(group.best_loss)
    ]
    _, number, place = min(losses)
    return number, place


def chosen_place(module: LinearProbe) -> tuple[int, int]:
    """Which of the batch's features, and which cell of them, it reads."""
    number, place = chosen_cell(module)
    spec = module.probe_groups[number].spec
    return spec.source, spec.first + place


def _loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
