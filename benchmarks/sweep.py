"""A whole grid of probes in one pass, against the same probes one by one.

Run as `python -m benchmarks.sweep [--device cpu|gpu] [--alone 22] [--out FILE]`. The workload: 198
cells (18 of 2048 numbers, 18 x 10 of 1024) in bfloat16, 2,000 samples of 10 tasks, 5 epochs,
batches of 128; every side goes from files to test scores, without controls and permutations.

- (a) trained: all cells in one fit, against the same Lightning probe fitted cell by cell
- (b) closed form: all cells by streamed ridge, against scikit-learn's Ridge cell by cell. Both
  read the stored bfloat16, of the cell alone, and search the same five strengths on the validation
  split, with the same choice. Ours are solutions of float64 (float32 factors, refined by residuals
  in float64), scikit-learn's of float32, which is to its favour

Of the cell-by-cell sides `--alone` cells are run, spread evenly over both fields, and the rest is
counted as their mean; `--alone 198` runs all of them. The sides are run in turn.

Results must be equal: weights of a cell within `TOLERANCE` of its largest weight, test scores
within one sample.
"""

import argparse
import functools
import importlib.metadata
import json
import logging
import os
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sweep_suite.grid_data import ACTION, SHAPES, TASKS, VLM, write_grid
from benchmarks.sweep_suite.sides import Solved, alone, fused, matmul_peak, scikit_learn
from datamodules.cell import Cell
from datamodules.latents import LatentDataModule

EPOCHS = 5
TOLERANCE = {"trained": 1e-3, "closed form": 1e-3}
"""Of weights, relative to the largest of the cell. Trained: float32, and AdamW divides by the root
of what came out. Closed form: scikit-learn solves in float32 here, ours to float64."""
WANTED = {"cpu": {"trained": 5.0, "closed form": 10.0}, "gpu": {"trained": 20.0}}
SAME_WORK = (
    "all sides: no controls, no permutations. closed form, both sides: bfloat16 rows of the cell, "
    "standardised, five strengths fitted and judged on the validation split, the best one tested; "
    "ours to float64, scikit-learn to float32"
)
LIBRARIES = ("torch", "lightning", "scikit-learn", "numpy")


def spread(cells: Sequence[Cell], share: float) -> list[Cell]:
    """Evenly spaced cells, two at least."""
    count = min(len(cells), max(2, round(share * len(cells))))
    return [cells[int(i)] for i in np.linspace(0, len(cells) - 1, count)]


def one_by_one(
    fields: Sequence[Sequence[Cell]], share: float, run: Callable[[Cell], Solved]
) -> tuple[float, dict[str, Solved], int]:
    """Runs some cells of each field; returns the seconds for all, what was found, and how many."""
    seconds, found = 0.0, {}
    for cells in fields:
        chosen = spread(cells, share)
        times = []
        for cell in chosen:
            found[cell.name] = run(cell)
            times.append(found[cell.name].seconds)
        seconds += statistics.mean(times) * len(cells)
    return seconds, found, len(found)


def differences(whole: Solved, single: dict[str, Solved]) -> tuple[float, float]:
    """The largest difference of weights, relative to the cell's largest, and of scores."""
    weights = [
        np.abs(whole.weights[name] - one.weights[name]).max() / np.abs(one.weights[name]).max()
        for name, one in single.items()
    ]
    scores = [abs(whole.scores[name] - one.scores[name]) for name, one in single.items()]
    return float(max(weights)), float(max(scores))


def operations(samples: dict[str, int]) -> int:
    """Floating-point operations of the matrix products of a fit of all cells."""
    numbers = sum(int(np.prod(shape)) for shape in SHAPES.values()) * TASKS
    forward = EPOCHS * (samples["train"] + samples["val"]) + samples["test"]
    return 2 * numbers * (forward + EPOCHS * samples["train"])


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs all sides in turn."""
    data = LatentDataModule(str(path), fields=[VLM, ACTION])
    data.setup()
    fields = [[cell for cell in data.cells if cell.field == name] for name in (VLM, ACTION)]
    samples = {split: len(rows) for split, rows in data.rows.items()}
    share = arguments.alone / len(data.cells)
    options = {"epochs": EPOCHS, "device": arguments.device}
    budget = {"memory_budget": arguments.memory_budget}
    peak, found = matmul_peak(arguments.device), {}
    for name in arguments.only:
        times: list[tuple[float, float]] = []
        weights, scores, count = 0.0, 0.0, 0
        for _ in range(arguments.rounds):
            if name == "trained":
                whole = fused(path, **options)
                rest, single, count = one_by_one(
                    fields, share, functools.partial(alone, path, **options)
                )
            else:
                closed = {**options, "epochs": 100}
                whole = fused(path, objective="ridge", **closed, **budget)
                rest, single, count = one_by_one(
                    fields, share, functools.partial(scikit_learn, path)
                )
                for cell, one in single.items():
                    assert one.penalties[cell] == whole.penalties[cell], f"strengths of {cell}"
            times.append((whole.seconds, rest))
            weights, scores = differences(whole, single)
            show(name, whole.seconds, rest, count, weights, scores)
            assert weights < TOLERANCE[name], f"weights differ by {weights}"
            assert scores < 1.5 / samples["test"], f"scores differ by {scores}"
        ours, theirs = (statistics.median(x) for x in zip(*times, strict=True))
        found[name] = {
            "fused_seconds": ours, "one_by_one_seconds": theirs, "ratio": theirs / ours,
            "wanted": WANTED[arguments.device].get(name), "rounds": times, "cells_run_alone": count,
            "weights_differ": weights, "scores_differ": scores,
        }  # fmt: skip
    if "trained" in found:
        rate = operations(samples) / found["trained"]["fused_seconds"]
        found["share_of_matmul_peak"] = rate / peak
        print(f"{rate / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s: {rate / peak:.2%} of the peak")
    return {"samples": samples, "measurements": found}


def show(name: str, ours: float, theirs: float, count: int, weights: float, scores: float) -> None:
    """One line a round."""
    print(
        f"{name}: all in one pass {ours:.1f} s, one by one {theirs:.1f} s (by {count} of 198), "
        f"{theirs / ours:.1f} times; weights differ by {weights:.1e}, scores by {scores:.1e}",
        flush=True,
    )


def main() -> None:
    """Measures both comparisons, or one."""
    parser = argparse.ArgumentParser(description="Grids of probes, timed.")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=22, help="cells that are run one by one")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides in turn")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--memory-budget", type=int, default=4 * 2**30, help="of the closed form")
    parser.add_argument("--only", nargs="+", choices=list(TOLERANCE), default=list(TOLERANCE))
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # of Lightning, about loggers and workers
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "data"
        write_grid(path, arguments.samples)
        result = measure(path, arguments)
    result["versions"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
    result["machine"] = {"cpus": os.cpu_count(), "threads": torch.get_num_threads(),
                         "processor": platform.processor() or platform.machine()}  # fmt: skip
    print(SAME_WORK)
    print(f"versions {result['versions']}, machine {result['machine']}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
