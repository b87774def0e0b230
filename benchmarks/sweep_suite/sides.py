"""The sides of `benchmarks.sweep`: each goes from files to test scores.

Every run has a cache of its own, so that nothing is found from the run before.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.linear_model import Ridge

from benchmarks.sweep_suite.grid_data import ACTION, VLM
from datamodules.cell import Cell
from datamodules.latents import LatentDataModule
from lightning_modules.closed_form.ridge import STRENGTHS
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.metrics.cluster_sums import mean_over_samples

BATCH = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solved:
    """What one run found: by cell, the maps on standardised features and the test score."""

    seconds: float
    weights: dict[str, np.ndarray]
    scores: dict[str, float]
    penalties: dict[str, float] = dataclasses.field(default_factory=dict)


def run_probe(
    path: Path, *, epochs: int, device: str, data: dict[str, Any], **options: Any
) -> Solved:
    """Fits and tests a grid through Lightning, without controls and permutations."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        module = LatentDataModule(str(path), batch_size=BATCH, cache_dir=cache, **data)
        probe = LinearProbe(controls="none", permutations=0, patience=epochs, **options)
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator=device, devices=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, default_root_dir=cache,
        )  # fmt: skip
        trainer.fit(probe, datamodule=module)
        trainer.test(probe, datamodule=module, verbose=False)
    seconds = time.perf_counter() - start
    assert probe.evaluation is not None
    weights, penalties, scores = {}, {}, {}
    for number, group in enumerate(probe.probe_groups):
        found = mean_over_samples(*probe.evaluation.of(number).score.compute())
        for place, cell in enumerate(group.spec.cells):
            weights[cell.name] = group.best_weight[place].cpu().numpy()
            penalties[cell.name] = float(group.penalty[place])
            scores[cell.name] = float(found[place])
    return Solved(seconds=seconds, weights=weights, scores=scores, penalties=penalties)


def fused(path: Path, *, epochs: int, device: str, **options: Any) -> Solved:
    """All 198 cells in one run."""
    data = {"fields": [VLM, ACTION]}
    return run_probe(path, epochs=epochs, device=device, data=data, **options)


def alone(path: Path, cell: Cell, *, epochs: int, device: str) -> Solved:
    """One cell in a run of its own."""
    words = {"fields": [cell.field], "layer": cell.layer}
    if cell.flow_time is not None:
        words["flow_time"] = cell.flow_time
    return run_probe(path, epochs=epochs, device=device, data=words)


def scikit_learn(path: Path, cell: Cell) -> Solved:
    """One cell by scikit-learn's Ridge on one-hot targets, at the best of our five strengths.

    As ours: float32 rows of this cell alone out of the shards, standardised, fitted on the training
    split, the strength chosen by the squared error on the validation split, tested. Ridge has no
    path of strengths, so it is fitted anew for each.
    """
    start = time.perf_counter()
    layer: Any = cell.layer
    data = LatentDataModule(str(path), fields=[cell.field], layer=layer)
    data.setup()
    x, y = _rows_of(data, cell)
    mean, std = x["train"].mean(0), x["train"].std(0)
    x = {split: (rows - mean) / std for split, rows in x.items()}
    hot = np.eye(data.target_spec.size, dtype=np.float32)
    fits = [
        Ridge(alpha=strength * len(x["train"])).fit(x["train"], hot[y["train"]])
        for strength in STRENGTHS
    ]
    losses = [np.square(fit.predict(x["val"]) - hot[y["val"]]).sum(1).mean() for fit in fits]
    chosen = int(np.argmin(losses))
    said = fits[chosen].predict(x["test"]).argmax(1)
    seconds = time.perf_counter() - start
    return Solved(
        seconds=seconds,
        weights={cell.name: fits[chosen].coef_.T},
        scores={cell.name: float((said == y["test"]).mean())},
        penalties={cell.name: STRENGTHS[chosen]},
    )


def _rows_of(
    data: LatentDataModule, cell: Cell
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and labels of each split."""
    places: dict[str, Any] = {"layers": [cell.layer]}
    if cell.flow_time is not None:
        places["flow_times"] = [cell.flow_time]
    x, y = {}, {}
    for split in ("train", "val", "test"):
        rows = data.rows[split]
        stored = data.dataset.read(cell.field, rows=rows, **places)
        x[split] = stored.reshape(len(rows), -1).astype(np.float32)
        y[split] = data.target.values(data.dataset, rows)
    return x, y


def matmul_peak(device: str, size: int = 4096) -> float:
    """Floating-point operations a second of a large float32 matrix product, the best of five."""
    a = torch.randn(size, size, device="cuda" if device == "gpu" else "cpu")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
