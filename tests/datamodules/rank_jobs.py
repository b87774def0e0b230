"""What each rank of the distributed tests does; one process does the same as rank 0 of 1."""

import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from datamodules import latents, statistics
from datamodules.latents import LatentDataModule
from lightning_modules import run_folder
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.prediction_table import PredictionTable
from lightning_modules.run_folder import RunFolder


class Rows(pl.Callback):
    """Notes which rows each stage reads, a list a batch; saves a checkpoint after some step."""

    def __init__(self, save_at: int | None = None, checkpoint: Path | None = None) -> None:
        self.read: dict[str, list[list[int]]] = {}
        self.save_at, self.checkpoint = save_at, checkpoint

    def _note(self, stage: str, batch: Any) -> None:
        self.read.setdefault(stage, []).append(batch.rows.tolist())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self._note(f"train{trainer.current_epoch}", batch)
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.checkpoint)

    def on_validation_batch_end(self, trainer, module, outputs, batch, *places) -> None:
        self._note("val", batch)

    def on_test_batch_end(self, trainer, module, outputs, batch, *places) -> None:
        self._note("test", batch)

    def on_test_end(self, trainer, module) -> None:
        groups = [module.evaluation.of(place) for place in range(len(module.probe_groups))]
        pairs = [m.compute() for group in groups for m in (group.loss, group.score)]
        self.sums = [total.numpy().copy() for total, _ in pairs]
        self.counts = [count.numpy().copy() for _, count in pairs]
        self.confusions = [
            group.confusion.compute().numpy().copy() for group in groups if group.confusion
        ]

    def on_predict_batch_end(self, trainer, module, outputs, batch, *places) -> None:
        self._note("predict", batch)


def trainer(out: Path, world_size: int, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", devices=world_size, strategy="ddp" if world_size > 1 else "auto",
        logger=TensorBoardLogger(out, name="", version="", default_hp_metric=False),
        callbacks=list(callbacks), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, log_every_n_steps=1, **options,
    )  # fmt: skip


def refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("only rank 0 writes")


def weights(probe: LinearProbe) -> list[np.ndarray]:
    return [group.weight.detach().numpy() for group in probe.probe_groups]


def fit(
    rank: int, world_size: int, out: Path, options: dict, *, epochs: int = 2, save_at: int = 3,
    objective: str = "auto",
):  # fmt: skip
    """Fits with a checkpoint in the middle of an epoch; rows, weights, statistics computed."""
    rows, run = Rows(save_at, out / "middle.ckpt"), RunFolder()
    data = LatentDataModule(**options, cache_dir=str(out / "cache"))
    probe = LinearProbe(objective=objective)
    nobody = {"write_json": refuse, "write_results": refuse} if rank else {}
    with (
        mock.patch.multiple(run_folder, **nobody) if nobody else mock.patch.dict({}),
        mock.patch.object(latents, "feature_statistics", wraps=statistics.feature_statistics) as f,
    ):
        t = trainer(out, world_size, rows, run, max_epochs=epochs)
        t.fit(probe, datamodule=data)
        t.save_checkpoint(out / "end.ckpt")
    return {
        "rows": rows.read, "weight": weights(probe), "computed": f.call_count,
        "loader": type(t.train_dataloader).__name__, "steps": t.global_step,
        "position": data.state_dict(),
    }  # fmt: skip


def go_on(rank: int, world_size: int, out: Path, checkpoint: Path, options: dict, epochs: int = 2):
    """Goes on with a checkpoint that other ranks or workers wrote."""
    rows = Rows()
    data, probe = LatentDataModule(**options, cache_dir=str(out / "cache")), LinearProbe()
    t = trainer(out, world_size, rows, max_epochs=epochs)
    t.fit(probe, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return {"rows": rows.read, "weight": weights(probe), "steps": t.global_step}


def evaluate(
    rank: int, world_size: int, out: Path, checkpoint: Path, options: dict, *,
    objective: str = "auto", stages: tuple[str, ...] = ("validate", "test", "predict"),
):  # fmt: skip
    """Validates, tests and predicts in float64; results, rows, what could not be read."""
    rows, run = Rows(), RunFolder()
    data = LatentDataModule(**options, cache_dir=str(out / "cache"))
    t = trainer(out, world_size, rows, run, PredictionTable(), precision="64-true")
    probe = LinearProbe(objective=objective)
    given = {"datamodule": data, "ckpt_path": checkpoint, "weights_only": True}
    # Drawing takes longer than all else together, and ranks have no part in it.
    with mock.patch.object(run_folder, "probe_figures", return_value=()):
        for stage in stages:
            quiet = {"return_predictions": False} if stage == "predict" else {"verbose": False}
            getattr(t, stage)(probe, **quiet, **given)
    return {
        "rows": rows.read, "results": {name: r.to_json() for name, r in run.results.items()},
        "sums": rows.sums, "counts": rows.counts, "confusions": rows.confusions,
        "unreadable": run.unreadable, "length": len(data.test_dataloader()),
    }  # fmt: skip


def everything(rank: int, world_size: int, out: Path, one: Path, options: dict, jobs: dict):
    """All that the tests ask of some number of ranks."""
    batch = {"batch_size": options["batch_size"] // world_size}
    found = {"fit": fit(rank, world_size, out / "fit", {**options, **batch})}
    found["go_on"] = go_on(
        rank, world_size, out / "go_on", one / "middle.ckpt", {**options, **batch}
    )
    for name, (checkpoint, changes, how) in jobs.items():
        given = {**options, "batch_size": 5, **changes}
        found[name] = evaluate(rank, world_size, out / name, checkpoint, given, **how)
    return found


def in_worlds(rank: int, ports: dict[int, int], out: Path, *args: Any):
    """The jobs among 2 ranks, then among 3: the processes start once. By the number of ranks."""
    found = {}
    for size, port in ports.items():
        if rank < size:
            os.environ["MASTER_PORT"] = str(port)
            found[size] = everything(rank, size, out / f"ranks{size}", *args)
            torch.distributed.destroy_process_group()
    return found


def copy(path: Path, to: Path) -> Path:
    return Path(shutil.copytree(path, to))
