"""Statistics and comparison of context vectors: seconds for 100,000 vectors of 2048 numbers.

    python -m benchmarks.context                       # 100,000 x 2048: 0.9 GB on the disk
    python -m benchmarks.context --vectors 5000 --width 256 --rounds 1

Statistics are read from shards on the local disk (in the page cache after the first, untimed pass)
by the module that `vla-lens test -c context_statistics` runs; figures are not counted. The other
side is numpy with all vectors in memory: mean, std, the same quantiles and, with covariance,
`np.cov`. A comparison takes 500 and 500 vectors and all measures.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from benchmarks.interleaved import interleave, show
from datamodules.cell import Cell
from datamodules.whole_dataset import WholeDataset
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, open_dataset
from lightning_modules.comparison.comparison import compare
from lightning_modules.comparison.exchange import plan_exchange
from lightning_modules.comparison.side import Side, SideChoice
from lightning_modules.context.cell_statistics import NotFinite
from lightning_modules.context.context_statistics import ContextStatistics
from lightning_modules.context.dimension_table import SHARES

FIELD = "context.act_head.input.tokens"
EPISODE = 100
COMPARED = 500
PLANTED = 5
LIBRARIES = ("numpy", "scipy", "torch", "lightning", "POT")


class SumsAlone(ContextStatistics):
    """The statistics without the card."""

    def _write(self, unreadable: dict[str, str]) -> None:
        """Nothing: figures take the same time whatever the number of vectors."""


def write_vectors(path: Path, vectors: int, width: int) -> None:
    """Episodes of 100 frames, float32."""
    spec = FieldSpec(name=FIELD, dtype="float32", shape=(1, width), axes=("token", "width"))
    info = DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)
    random = np.random.default_rng(0)
    with EpisodeWriter(path, info) as writer:
        for number in range(vectors // EPISODE):
            with writer.episode(
                suite="bench", task_id=0, episode=number, instruction="x"
            ) as record:
                values = random.standard_normal((EPISODE, 1, width), np.float32)
                for step in range(EPISODE):
                    record.append(timestep=step, call=step, latents={FIELD: values[step]})
                record.finish(success=None, success_at_end=None, episode_length=EPISODE)


def ours(path: Path, covariance: bool) -> Callable[[], float]:
    """Vectors a second of the module over the shards."""

    def run() -> float:
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = SumsAlone(out=str(path.parent / "card"), covariance=covariance)
        start = time.perf_counter()
        trainer.test(module, datamodule=WholeDataset(str(path), [FIELD]), verbose=False)
        return module.sums[0].vectors.count / (time.perf_counter() - start)

    return run


def numpys(path: Path, covariance: bool) -> Callable[[], float]:
    """Vectors a second of numpy with all of them in memory."""

    def run() -> float:
        start = time.perf_counter()
        values = open_dataset(path).read(FIELD)[:, 0]
        values.mean(0, dtype=np.float64)
        values.std(0, dtype=np.float64)
        np.quantile(values, SHARES, axis=0, method="inverted_cdf")
        if covariance:
            np.cov(values.T)
        return len(values) / (time.perf_counter() - start)

    return run


def side(name: Any, vectors: np.ndarray) -> Side:
    """Independent vectors as one side of a comparison."""
    n = len(vectors)
    names = [f"{name}{i}" for i in range(n)]
    return Side(
        name=name, choice=SideChoice(path="", field=FIELD), vectors=vectors, keys=names,
        cell=Cell(expert="context", site="x", region="input", pool="tokens"),
        unit=np.arange(n), episodes=names, tasks=[""] * n, prompts=frozenset(), facts={},
        not_finite=NotFinite(), not_finite_keys=[],
    )  # fmt: skip


def comparison(width: int) -> dict[str, Any]:
    """Seconds of 500 against 500 vectors with all measures and 400 exchanges, and what is found.

    The first `PLANTED` dimensions of A lie half a standard deviation higher.
    """
    vectors = np.random.default_rng(0).standard_normal((2 * COMPARED, width), np.float32)
    vectors[:COMPARED, :PLANTED] += 0.5
    sides = side("A", vectors[:COMPARED]), side("B", vectors[COMPARED:])
    start = time.perf_counter()
    found = compare(vectors, plan_exchange(*sides, paired=False, permutations=400))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "p": found.p, "moved": sorted(found.moved()), "planted": PLANTED}


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the data are written")
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found: dict[str, Any] = {
        "workload": f"{arguments.vectors} x {arguments.width}, float32",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.get_num_threads()}",
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    print(found["workload"], found["machine"], found["versions"])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "data"
        write_vectors(path, arguments.vectors, arguments.width)
        for word, covariance in (("moments and quantiles", False), ("with covariance", True)):
            sides = {"vla-lens, from shards": ours(path, covariance),
                     "numpy, all in memory": numpys(path, covariance)}  # fmt: skip
            rates = interleave(sides, arguments.rounds, unit="vectors/s")
            show(word, rates)
            seconds = arguments.vectors / rates["sides"]["vla-lens, from shards"]["median"]
            print(f"  {seconds:.1f} s for {arguments.vectors:,} vectors")
            found[word] = {**rates, "seconds": seconds}
    found["comparison"] = compared = comparison(arguments.width)
    print(
        f"comparison of {COMPARED} and {COMPARED}: {compared['seconds']:.1f} s; p = "
        f"{compared['p']:.4f} of all measures, dimensions {compared['moved']} moved, planted were "
        f"the first {PLANTED}"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
