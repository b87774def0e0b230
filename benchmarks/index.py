"""Opening and asking an index of ten million samples, and `shards inspect` of 10,000 shards.

Run as `python -m benchmarks.index [--samples 1000000 10000000 30000000] [--out FILE]`. Each round
is a process of its own, so that nothing is warm but the page cache; memory is the largest resident
size of that process, the interpreter and its libraries included.

- open: `open_dataset`
- filter: `select` of a suite, tasks, timesteps and success, as a mapping and as an expression
- places: offsets of 8 batches of 128 random samples of one field
- setup: `LatentDataModule.setup`, the import of torch not counted
"""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.synthetic_index import write_synthetic

WANTED = {"open": 1.0, "filter": 1.0, "filter, expression": 1.0, "inspect": 2.0}
"""Seconds that are asked for."""
WANTED_BYTES = 1.5e9
SHARDS = 10_000


def main() -> None:
    """Measures and prints, or runs one measurement in this process."""
    parser = argparse.ArgumentParser(description="Opening and asking a large index, timed.")
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--shards", type=int, default=SHARDS, help="real ones, to be inspected")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-setup", action="store_true", help="leave the data module out")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, path = arguments.measure
        print(json.dumps(MEASUREMENTS[what](path) | {"peak": peak_bytes()}))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs all rounds; prints each figure as soon as it is there."""
    kinds = ["open", "filter", "filter, expression", "places"]
    kinds += [] if arguments.no_setup else ["setup"]
    measurements: dict[str, Any] = {}
    for samples in arguments.samples:
        path = folder / str(samples)
        begin = time.perf_counter()
        size = write_synthetic(path, samples)
        print(f"{samples:,} samples, index {size / 1e6:.0f} MB, made in "
              f"{time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
        runs = {kind: functools.partial(in_process, kind, path) for kind in kinds}
        found = summaries(runs, arguments)
        measurements[str(samples)] = {"index_bytes": size, **found}
        shutil.rmtree(path)
    if arguments.shards:
        path = folder / "shards"
        write_shards(path, arguments.shards)
        found = summaries({"inspect": lambda: inspect_command(path)}, arguments)
        measurements[f"{arguments.shards} shards"] = found
    return {
        "benchmark": "index",
        "rounds": arguments.rounds,
        "measurements": measurements,
        "wanted": {"seconds": WANTED, "bytes": WANTED_BYTES},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "pyarrow", "torch")},
        },
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
    }


def summaries(
    runs: dict[str, Callable[[], dict[str, float]]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Runs all in turn, round after round; medians with minimum and maximum."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            found = run()
            seconds[name].append(found["seconds"])
            peaks[name].append(found["peak"])
    result = {}
    for name, times in seconds.items():
        result[name] = {
            "seconds": {"median": statistics.median(times), "min": min(times), "max": max(times)},
            "peak_bytes": max(peaks[name]),
        }
        wanted = f" (wanted {WANTED[name]:g})" if name in WANTED else ""
        spread = f"({min(times):.3f} to {max(times):.3f}){wanted}"
        memory = f", {max(peaks[name]) / 1e9:.2f} GB" if max(peaks[name]) else ""
        print(f"  {name:20} {statistics.median(times):7.3f} s {spread}{memory}", flush=True)
    return result


def in_process(what: str, path: Path) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.index", "--measure", what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_bytes() -> int:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------------------- in one process


def run_open(path: str) -> dict[str, float]:
    """Opens."""
    from jax_bridge.shards import open_dataset

    begin = time.perf_counter()
    assert len(open_dataset(path))
    return {"seconds": time.perf_counter() - begin}


def run_filter(path: str) -> dict[str, float]:
    """Selects by a mapping; the opening is not counted."""
    from jax_bridge.shards import open_dataset

    dataset = open_dataset(path)
    where = {"suite": "libero_10", "task_id": [2, 3], "timestep": range(0, 100), "success": True}
    begin = time.perf_counter()
    rows = dataset.select(where)
    seconds = time.perf_counter() - begin
    assert len(rows)
    return {"seconds": seconds, "rows": len(rows)}


def run_expression(path: str) -> dict[str, float]:
    """Selects the same by an expression."""
    import pyarrow.compute as pc

    from jax_bridge.shards import open_dataset

    dataset = open_dataset(path)
    tasks = (pc.field("task_id") == 2) | (pc.field("task_id") == 3)
    where = (pc.field("suite") == "libero_10") & tasks & (pc.field("timestep") < 100)
    begin = time.perf_counter()
    rows = dataset.select(where & pc.field("success"))
    seconds = time.perf_counter() - begin
    assert len(rows)
    return {"seconds": seconds, "rows": len(rows)}


def run_places(path: str) -> dict[str, float]:
    """Finds out where 8 random batches of one field lie."""
    import numpy as np

    from benchmarks.synthetic_index import FIELD
    from jax_bridge.shards import open_dataset
    from jax_bridge.shards.index_rows import member_column, tensor_column

    dataset = open_dataset(path)
    rows = np.random.default_rng(0).integers(0, len(dataset), (8, 128))
    suffix = "latents.safetensors"
    names = [tensor_column(suffix, FIELD, "offset")]
    names += [member_column(suffix, what) for what in ("offset", "bytes")]
    begin = time.perf_counter()
    dataset.index.codes("shard")
    for batch in rows:
        for name in names:
            assert dataset.index.integers(name, batch).min() >= 0
    return {"seconds": time.perf_counter() - begin}


def run_setup(path: str) -> dict[str, float]:
    """Resolves and splits a selection of everything."""
    from datamodules.latents import LatentDataModule

    data = LatentDataModule(path, target="task_id", split_by="episode")
    begin = time.perf_counter()
    data.setup("fit")
    return {"seconds": time.perf_counter() - begin}


MEASUREMENTS: dict[str, Callable[[str], dict[str, float]]] = {
    "open": run_open,
    "filter": run_filter,
    "filter, expression": run_expression,
    "places": run_places,
    "setup": run_setup,
}


# ---------------------------------------------------------------------------- 10,000 shards


def write_shards(path: Path, shards: int) -> None:
    """Small real shards, one episode of two samples each; nothing waits for the disk."""
    import numpy as np

    from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits
    from jax_bridge.shards.file_layer import FileLayer

    class Hasty(FileLayer):
        def sync(self, descriptor: int) -> None:
            pass

        def sync_folder(self, path: Path) -> None:
            pass

    begin = time.perf_counter()
    spec = FieldSpec(
        name="x", dtype="float32", shape=(2, 8), axes=("layer", "width"), layers=(0, 1)
    )
    info = DatasetInfo(fields={"x": spec}, capture={}, model={}, environment={}, seed=0)
    with EpisodeWriter(path, info, ShardLimits(shard_bytes=1), files=Hasty()) as writer:
        for number in range(shards):
            task_id, place = number % 40, number // 40
            with writer.episode(
                suite="bench", task_id=task_id, episode=place, instruction="do it"
            ) as episode:
                for step in range(2):
                    latents = {"x": np.full(spec.shape, step, np.float32)}
                    episode.append(timestep=step, call=step, latents=latents)
                episode.finish(success=number % 3 > 0, success_at_end=True, episode_length=2)
    print(f"{shards:,} shards, made in {time.perf_counter() - begin:.0f} s", flush=True)


def inspect_command(path: Path) -> dict[str, float]:
    """The command as a person starts it, the start of Python included."""
    command = [sys.executable, "-m", "cli.main", "shards", "inspect", str(path)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    assert "episodes" in done.stdout
    return {"seconds": seconds, "peak": 0}


if __name__ == "__main__":
    main()
