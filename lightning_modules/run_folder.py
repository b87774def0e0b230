"""Fills the run folder: provenance, metrics as JSON and CSV, figures, TensorBoard.

RUN/config.yaml              written by LightningCLI; config.test.yaml of a later test
RUN/provenance.json          command, versions, machine, data: an entry a stage
RUN/checkpoints/last.ckpt    weights, best weights of each cell, optimiser, statistics
RUN/metrics/{val,test}.json  everything the report shows; .csv: one line a cell
RUN/figures/{val,test}_*.png
RUN/unreadable.json          with `on_error: skip`: the samples that could not be read, and why
RUN/events.out.tfevents.*    TensorBoard
RUN/predictions.parquet      after `vla-lens predict`
"""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from lightning_modules.figures.probe_figures import probe_figures
from lightning_modules.figures.style import save_figure
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.metrics.cluster_sums import mean_over_samples
from lightning_modules.provenance import provenance
from lightning_modules.results import CellResult, ProbeResults
from lightning_modules.statistics.permutation import PermutationTest
from lightning_modules.summarise import summarise
from lightning_modules.verdict import verdict

CSV_COLUMNS: tuple[str, ...] = (
    "expert", "site", "region", "pool", "layer", "flow_time", "score_name", "score", "low",
    "high", "gain_low", "gain_high", "trivial", "chance", "balanced_accuracy", "loss",
    "validation_loss", "best_epoch", "chosen", "leaky", "verdict", "selectivity",
    "selectivity_low", "selectivity_high", "p_value", "p_corrected", "null_score", "penalty",
)  # fmt: skip
"""What is known of every cell; behind it, each control's score and the margin over it."""


def write_json(path: Path, content: Any) -> None:
    """Writes readable JSON; NaN is refused, so that any reader can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def csv_rows(results: ProbeResults) -> list[dict[str, Any]]:
    """One row a cell: the columns of `CSV_COLUMNS`, and three for each control."""
    rows = []
    for i, cell in enumerate(results.cells):
        (low, high), (gain_low, gain_high) = cell.interval, cell.gain
        rows.append(
            {
                **cell.cell.to_json(), "score_name": results.score_name, "score": cell.score,
                "low": low, "high": high, "gain_low": gain_low, "gain_high": gain_high,
                "trivial": results.trivial, "chance": results.chance,
                "balanced_accuracy": cell.balanced_accuracy, "loss": cell.loss,
                "validation_loss": cell.validation_loss, "best_epoch": cell.best_epoch,
                "chosen": i == results.chosen, "leaky": results.leaky,
                "verdict": verdict(results, cell).word, "p_value": cell.p_value,
                "p_corrected": cell.p_corrected, "null_score": cell.null_score,
                "penalty": cell.penalty, **_control_columns(cell),
            }
        )  # fmt: skip
    return rows


def _control_columns(cell: CellResult) -> dict[str, float]:
    """The selectivity, each control's score, and the interval of the margin over it."""
    columns: dict[str, float] = {}
    if cell.selectivity is not None:
        found = cell.selectivity
        ends = {"": found.value, "_low": found.low, "_high": found.high}
        columns |= {f"selectivity{end}": value for end, value in ends.items()}
    if cell.code is not None:
        columns |= {"code_bits": cell.code.bits, "code_compression": cell.code.compression}
    for name, control in cell.controls.items():
        columns[f"{name}_score"] = control.score.value
        columns[f"{name}_margin_low"] = control.margin.low
        columns[f"{name}_margin_high"] = control.margin.high
    return columns


def write_csv(path: Path, results: ProbeResults) -> None:
    """Writes one line a cell; what is unknown is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv_rows(results)
        writer = csv.DictWriter(file, dict.fromkeys((*CSV_COLUMNS, *(k for r in rows for k in r))))
        writer.writeheader()
        for row in rows:
            known = {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in row.items()
            }
            writer.writerow(known)


def write_results(folder: Path, results: ProbeResults, figures: Mapping[str, Figure]) -> None:
    """Writes metrics and figures of one split into a run folder."""
    write_json(folder / "metrics" / f"{results.split}.json", results.to_json())
    write_csv(folder / "metrics" / f"{results.split}.csv", results)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures" / f"{results.split}_{name}.png")


def results_of(module: LinearProbe, split: str, clusters: Any) -> ProbeResults:
    """The results of the evaluation that a module has just been through."""
    assert module.spec is not None
    assert module.evaluation is not None
    results = summarise(
        module.spec, module.evaluation, clusters, split=split, best_epoch=module.best_epoch,
        best_loss=module.best_loss,
    )  # fmt: skip
    results = dataclasses.replace(results, left_out=module.left_out)
    penalties = torch.cat([g.penalty for g in module.probe_groups if g.spec.is_main]).tolist()
    return with_p_values(results, penalties, module.permuted if split == "test" else None)


def with_p_values(
    results: ProbeResults, penalties: Sequence[float], test: PermutationTest | None
) -> ProbeResults:
    """Adds each cell's penalty and what the permutation test says of it."""
    cells = [
        dataclasses.replace(cell, penalty=None if math.isnan(penalty) else penalty)
        for cell, penalty in zip(results.cells, penalties, strict=True)
    ]
    if test is None:
        return dataclasses.replace(results, cells=tuple(cells))
    cells = [
        dataclasses.replace(
            cell, p_value=float(test.raw[i]), p_corrected=float(test.corrected[i]),
            null_score=float(test.null_mean[i]),
        )
        for i, cell in enumerate(cells)
    ]  # fmt: skip
    return dataclasses.replace(
        results, cells=tuple(cells), permutation=test.kind, permutations=test.permutations
    )


class RunFolder(pl.Callback):
    """Writes what a run leaves behind.

    Args:
        command: the command as typed, for the provenance.
    """

    def __init__(self, command: str = "") -> None:
        self.command = command
        self.results: dict[str, ProbeResults] = {}
        self.unreadable: dict[str, dict[str, str]] = {}
        """Keys of samples that could not be read (`on_error: skip`) and why, by split."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Writes the provenance of this stage beside that of earlier ones."""
        folder = trainer.log_dir  # asked on all ranks: rank 0 tells the others
        if folder is None or not trainer.is_global_zero:
            return
        path = Path(folder) / "provenance.json"
        entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        data = trainer.datamodule.describe()  # pyright: ignore[reportAttributeAccessIssue]
        device = str(trainer.strategy.root_device)
        entries[stage] = provenance(command=self.command, data=data, device=device)
        write_json(path, entries)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows each cell's loss and score in TensorBoard while the grid trains."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        assert isinstance(pl_module, LinearProbe)
        if pl_module.solving:
            return  # the pass served to choose strengths; the evaluation comes after the fit
        assert pl_module.evaluation is not None
        assert pl_module.spec is not None
        several = sum(group.is_main for group in pl_module.spec.groups) > 1
        for number, group in enumerate(pl_module.spec.groups):
            if group.prefix or group.round != pl_module.rounds.number:
                continue
            part = pl_module.evaluation.of(number)
            for word, metric in (("loss", part.loss), (pl_module.objective.score, part.score)):
                means = mean_over_samples(*metric.compute()).tolist()
                folder = f"val_{word}" if group.is_main else f"val_{word}_{group.name}"
                for cell, value in zip(group.cells, means, strict=True):
                    name = cell.name if several or not group.is_main else cell.place
                    self._scalar(trainer, f"{folder}/{name}", value)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes which training samples were replaced because they cannot be read."""
        self._note_unreadable(trainer, "train")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the validation results, if this is not a pass in the middle of a fit."""
        if trainer.state.fn == "validate":
            self._write(trainer, pl_module, "val")
        elif not trainer.sanity_checking:
            self._note_unreadable(trainer, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the test results."""
        self._write(trainer, pl_module, "test")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes which samples have no prediction because they cannot be read."""
        self._note_unreadable(trainer, "all")

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, split: str) -> None:
        assert isinstance(module, LinearProbe)
        clusters = trainer.datamodule.clusters  # pyright: ignore[reportAttributeAccessIssue]
        results = results_of(module, split, clusters)
        self.results[split] = results
        folder = trainer.log_dir
        self._note_unreadable(trainer, split)
        if folder is None or not trainer.is_global_zero:
            return
        figures = dict(probe_figures(results))
        write_results(Path(folder), results, figures)
        for name, figure in figures.items():
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(
                        f"{split}/{name}", figure, module.current_epoch, close=False
                    )

    def _note_unreadable(self, trainer: pl.Trainer, split: str) -> None:
        """Keeps which samples of a split could not be read by any rank, and why."""
        unreadable = trainer.datamodule.unreadable(split)  # pyright: ignore[reportAttributeAccessIssue]
        folder = trainer.log_dir
        if not unreadable or folder is None:
            return
        self.unreadable[split] = unreadable
        if trainer.is_global_zero:
            path = Path(folder) / "unreadable.json"
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            write_json(path, {**before, **self.unreadable})

    def _scalar(self, trainer: pl.Trainer, name: str, value: float) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({name: value}, step=trainer.global_step)
