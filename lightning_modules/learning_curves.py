"""Validation loss and score of every cell by epoch: RUN/metrics/curves.csv and a figure."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from jaxtyping import Int64

from lightning_modules.figures.curves import FILE, read_curves
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.cluster_sums import mean_over_samples
from lightning_modules.summarise import regroup

DRAWS = 500
"""Of the interval of the loss: a curve is drawn, not judged."""
KEPT: tuple[str, ...] = ("main", "shuffled")
"""Kinds of groups whose curves are kept."""


class LearningCurves(pl.Callback):
    """Collects what each validation pass of a fit found; writes it when the fit ends."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the means of this epoch."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        assert isinstance(pl_module, LinearProbe)
        if pl_module.solving:
            return  # the pass served to choose strengths: there is nothing to follow
        assert pl_module.evaluation is not None
        for number, group in enumerate(pl_module.probe_groups):
            kept = group.spec.kind in KEPT and not group.spec.prefix
            if not kept or not pl_module.trains(group):
                continue
            part = pl_module.evaluation.of(number)
            loss, score = (mean_over_samples(*x.compute()) for x in (part.loss, part.score))
            ends = cluster_bootstrap(*regroup(part.loss, self._units(trainer)), resamples=DRAWS)
            for cell, mean_loss, mean_score, (low, high) in zip(
                group.spec.cells, loss.tolist(), score.tolist(), ends.tolist(), strict=True
            ):
                row = {"epoch": trainer.current_epoch, "kind": group.spec.kind, "cell": cell.name}
                numbers = {"loss": mean_loss, "score": mean_score, "low": low, "high": high}
                self.rows.append({**row, **numbers})

    def _units(self, trainer: pl.Trainer) -> Int64[np.ndarray, " n"]:
        """The unit of the split that each episode belongs to."""
        return trainer.datamodule.clusters.unit_of_episode  # pyright: ignore[reportAttributeAccessIssue]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the file; epochs before this fit, if it goes on with another, stay."""
        folder = trainer.log_dir  # asked on all ranks: rank 0 tells the others
        if folder is None or not trainer.is_global_zero or not self.rows:
            return
        path = Path(folder) / FILE
        first = min(row["epoch"] for row in self.rows)
        earlier = [row for row in read_curves(path) if row["epoch"] < first]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows([*earlier, *self.rows])
