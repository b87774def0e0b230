"""Reading and writing shards, against other formats and plain reads of the same content.

Run as `python -m benchmarks.shards [--only PART ...] [--out FILE]`. The workload is one field of 18
layers, about 0.6 MB a sample, in float32 and in bfloat16. The parts, each described in its file in
`benchmarks/shards_suite`:

- read, batches (`whole_tars`): against webdataset; batches with 0 to 4 workers
- formats: webdataset, LitData, HDF5 and pickles of the same content
- cold: with an empty page cache, against `dd` and plain reads
- remote (`over_s3`): over S3, against webdataset with fsspec
- write (`writing`): against `tarfile`
"""

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import interleave, show
from benchmarks.shards_suite import cold, formats, over_s3, whole_tars, writing
from benchmarks.shards_suite.content import BATCH, LAYER_BYTES, LAYERS, dataset_info, write_ours

LIBRARIES = ("numpy", "pyarrow", "safetensors", "torch", "webdataset", "h5py", "litdata", "s3fs")
DTYPES = ("float32", "bfloat16")
WANTED = {"read": 30.0, "batches, 0 workers": 15.0, "write": 0.7, "one layer, cold": 0.8}
"""Ratios of ours to the first other side that are asked for."""
WORKERS = (0, 1, 2, 4)
REMOTE_SAMPLES = 200
Measure = Callable[[Path, str, argparse.Namespace], dict[str, Any]]


def main() -> None:
    """Measures all parts, or some."""
    parser = argparse.ArgumentParser(description="Reading and writing, timed.")
    parser.add_argument("--samples", type=int, default=1200, help="of each dtype")
    parser.add_argument("--rounds", type=int, default=7, help="of all sides in turn")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    # webdataset leaves closing its files to the garbage collector.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments)
    print(f"versions {result['versions']}, machine {result['machine']}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts on each dtype; prints each as soon as it is there."""
    measurements: dict[str, Any] = {}
    for dtype in arguments.dtypes:
        path = folder / dtype
        write_ours(path, dataset_info(dtype), arguments.samples)
        for part in arguments.only:
            for name, found in PARTS[part](path, dtype, arguments).items():
                measurements[f"{name}, {dtype}"] = found | {"wanted": WANTED.get(name)}
        shutil.rmtree(path)
    return {
        "benchmark": "shards",
        "workload": f"{arguments.samples} samples of {LAYERS} layers x {LAYER_BYTES} bytes, "
        f"batches of {BATCH}",
        "rounds": arguments.rounds,
        "measurements": measurements,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.machine(),
            "batches end in": "pinned memory" if torch.cuda.is_available() else "plain memory",
        },
    }


def version(library: str) -> str:
    """Of an installed library."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return "not installed"


def timed(
    name: str,
    dtype: str,
    sides: dict[str, Callable[[], float]],
    rounds: int,
    *,
    unit: str = "samples/s",
) -> dict[str, Any]:
    """Runs, and prints."""
    found = interleave(sides, rounds, unit=unit)
    show(f"{name}, {dtype}", found)
    return found


def read(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """`dataset.read`."""
    sides = whole_tars.read_sides(path, dtype)
    return {"read": timed("read", dtype, sides, arguments.rounds)}


def batches(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The data module."""
    found = {}
    for workers in WORKERS:
        name = f"batches, {workers} workers"
        sides = whole_tars.batch_sides(path, dtype, workers)
        found[name] = timed(name, dtype, sides, arguments.rounds)
    return found


def compare_formats(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same content in other files."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        sides = formats.sides(path, dtype, Path(folder))
        return {"formats": timed("formats", dtype, sides, arguments.rounds)}


def compare_cold(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Nothing in the page cache."""
    run = functools.partial(timed, rounds=arguments.rounds, unit="MB/s")
    return {name: run(name, dtype, sides) for name, sides in cold.sides(path).items()}


def remote(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Over S3; a smaller data set, for the server keeps it in memory."""
    if importlib.util.find_spec("moto") is None:
        print("remote: moto is not installed (`make dev`), so this part is left out")
        return {}
    samples = min(REMOTE_SAMPLES, arguments.samples)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        small = Path(folder) / "data"
        write_ours(small, dataset_info(dtype), samples, shard_bytes=32 * 2**20)
        with over_s3.served(small) as server:
            sides = over_s3.sides(small, dtype, server)
            found = timed("remote", dtype, sides, arguments.rounds)
            found["bytes moved for one needed"] = over_s3.overhead(server, samples)
    print(f"  bytes moved for one needed: {found['bytes moved for one needed']}")
    return {"remote": found}


def write(path: Path, dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The writer."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        sides = writing.sides(path, dtype, arguments.samples, Path(folder))
        return {"write": timed("write", dtype, sides, arguments.rounds)}


PARTS: dict[str, Measure] = {
    "read": read,
    "batches": batches,
    "formats": compare_formats,
    "cold": compare_cold,
    "remote": remote,
    "write": write,
}


if __name__ == "__main__":
    main()
