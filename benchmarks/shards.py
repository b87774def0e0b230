"""Reading one layer and writing whole episodes, against webdataset and tarfile.

Run as `python -m benchmarks.shards [--out FILE]`. The workload is one field of 18 layers, about
0.6 MB a sample, in float32 and in bfloat16; the page cache is warm.

- read: `dataset.read` of one layer, against `webdataset` decoding the same member and taking it
- batches: the training batches of `LatentDataModule`, against `webdataset` making such batches
- write: `EpisodeWriter` (digests, manifest and index included), against `tarfile` copying the
  same members, with fsync on both sides
- write, memory: the same, against `tarfile` that reads nothing: members that lie in memory
"""

import argparse
import importlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import statistics
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
import webdataset as wds

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits, open_dataset

FIELD = "vlm.hidden_states.text.mean"
LAYERS = 18
LAYER_BYTES = 32 * 1024
EPISODE_SAMPLES = 40
TASKS = 5
BATCH = 128
MEMBER = "latents.safetensors"
LIBRARIES = ("numpy", "pyarrow", "safetensors", "torch", "webdataset")
WANTED = {"read": 30.0, "batches": 15.0, "write": 0.7, "write, memory": None}
"""Ratios, ours to theirs, that are asked for; the last is for comparison only."""


def main() -> None:
    """Measures all and prints a table."""
    parser = argparse.ArgumentParser(description="Reading and writing, timed.")
    parser.add_argument("--samples", type=int, default=1200, help="of each dtype")
    parser.add_argument("--rounds", type=int, default=7, help="of A and B in turn")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    # webdataset leaves closing its files to the garbage collector.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), samples=arguments.samples, rounds=arguments.rounds)
    print_result(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(folder: Path, *, samples: int, rounds: int) -> dict[str, Any]:
    """Runs every comparison on both dtypes."""
    measurements: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        path = folder / dtype
        info = dataset_info(dtype)
        write_ours(path, info, samples)
        pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
            "read": (lambda p=path: read_ours(p), lambda p=path, d=dtype: read_theirs(p, d)),
        }
        batches = batches_ours(path)
        if batches is not None:
            pairs["batches"] = (batches, lambda p=path, d=dtype: batches_theirs(p, d))
        pairs["write"] = (
            lambda f=folder, i=info: timed_write(f / "ours", lambda p: write_ours(p, i, samples)),
            lambda f=folder, s=path: timed_write(f / "theirs", lambda p: write_theirs(p, s)),
        )
        pairs["write, memory"] = (
            pairs["write"][0],
            lambda f=folder, s=path: timed_write(
                f / "theirs", lambda p: write_memory(p, s, samples)
            ),
        )
        for name, (ours, theirs) in pairs.items():
            compared = compare(ours, theirs, rounds)
            measurements[f"{name} {dtype}"] = {**compared, "wanted": WANTED[name]}
        shutil.rmtree(path)
    return {
        "benchmark": "shards",
        "workload": f"{samples} samples of {LAYERS} layers x {LAYER_BYTES} bytes, warm cache, "
        f"batches of {BATCH}, no worker processes",
        "rounds": rounds,
        "measurements": measurements,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
    }


def compare(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> dict[str, Any]:
    """Measures A B A B after one untimed round; each side returns its rate."""
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for round_number in range(rounds + 1):
        for name, side in (("ours", ours), ("theirs", theirs)):
            rate = side()
            if round_number:
                rates[name].append(rate)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        **{
            name: {"median": medians[name], "min": min(found), "max": max(found)}
            for name, found in rates.items()
        },
        "unit": "samples/s",
        "ratio": medians["ours"] / medians["theirs"],
    }


# ---------------------------------------------------------------------------- reading


def read_ours(path: Path) -> float:
    """One layer of all samples, a different one each time."""
    dataset = open_dataset(path)
    begin = time.perf_counter()
    for layer in range(LAYERS):
        assert len(dataset.read(FIELD, layers=[layer])) == len(dataset)
    return LAYERS * len(dataset) / (time.perf_counter() - begin)


def read_theirs(path: Path, dtype: str) -> float:
    """The same member decoded from the stream of the tars."""
    begin = time.perf_counter()
    count = sum(1 for _ in stream_theirs(path, dtype))
    return count / (time.perf_counter() - begin)


def stream_theirs(path: Path, dtype: str) -> Iterator[Any]:
    """Layer 5 of each sample through webdataset's own pipeline."""
    load = safetensors.numpy.load if dtype == "float32" else safetensors.torch.load
    urls = [str(tar) for tar in sorted((path / "shards").glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
    yield from dataset.to_tuple(MEMBER).map_tuple(lambda member: load(member)[FIELD][5])


def batches_ours(path: Path) -> Callable[[], float] | None:
    """An epoch of the data module's training batches; None where it cannot be imported."""
    try:
        module = importlib.import_module("datamodules.latents")
    except ImportError:
        return None
    data = module.LatentDataModule(str(path), layer=[5], batch_size=BATCH, target="task_id")
    data.setup("fit")

    def run() -> float:
        begin = time.perf_counter()
        count = sum(len(batch.features) for batch in data.train_dataloader())
        return count / (time.perf_counter() - begin)

    return run


def batches_theirs(path: Path, dtype: str) -> float:
    """The same batches, feature and task, out of webdataset."""
    load = safetensors.numpy.load if dtype == "float32" else safetensors.torch.load
    urls = [str(tar) for tar in sorted((path / "shards").glob("*.tar"))]
    dataset = (
        wds.WebDataset(urls, shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
        .to_tuple(MEMBER, "json")
        .map_tuple(
            lambda member: torch.as_tensor(load(member)[FIELD][5]),
            lambda member: json.loads(member)["task_id"],
        )
        .batched(BATCH)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=0)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
    begin = time.perf_counter()
    count = sum(len(features) for features, _ in loader)
    return count / (time.perf_counter() - begin)


# ---------------------------------------------------------------------------- writing


def dataset_info(dtype: str) -> DatasetInfo:
    """One field of 18 layers."""
    width = LAYER_BYTES // (4 if dtype == "float32" else 2)
    spec = FieldSpec(
        name=FIELD,
        dtype=dtype,
        shape=(LAYERS, width),
        axes=("layer", "width"),
        layers=tuple(range(LAYERS)),
    )
    return DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)


def write_ours(path: Path, info: DatasetInfo, samples: int) -> int:
    """Whole episodes through the writer; returns how many samples."""
    spec = info.fields[FIELD]
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, *spec.shape), np.float32).astype(spec.numpy_dtype)
    robot = {"state": np.zeros(8), "actions": np.zeros((10, 7)), "executed": np.zeros(7)}
    with EpisodeWriter(path, info, ShardLimits()) as writer:
        for number in range(samples // EPISODE_SAMPLES):
            task_id, episode = number % TASKS, number // TASKS
            text = f"task {task_id}"
            with writer.episode(
                suite="bench", task_id=task_id, episode=episode, instruction=text
            ) as record:
                for timestep in range(EPISODE_SAMPLES):
                    latents = {FIELD: values[timestep % 2]}
                    record.append(timestep=timestep, call=timestep, latents=latents, **robot)
                record.finish(success=True, success_at_end=True, episode_length=EPISODE_SAMPLES)
    return samples // EPISODE_SAMPLES * EPISODE_SAMPLES


def write_theirs(path: Path, source: Path) -> int:
    """Copies the same tars with `tarfile`, member by member, and brings each to the disk."""
    path.mkdir()
    samples = 0
    for shard in sorted((source / "shards").glob("*.tar")):
        with (path / shard.name).open("wb") as file:
            with tarfile.open(shard) as old, tarfile.open(fileobj=file, mode="w") as new:
                for member in old:
                    new.addfile(member, old.extractfile(member))
                    samples += member.name.endswith(".json")
            file.flush()
            os.fsync(file.fileno())
    return samples


def write_memory(path: Path, source: Path, samples: int) -> int:
    """Writes the members of one episode again and again, as many samples as asked for."""
    path.mkdir()
    with tarfile.open(sorted((source / "shards").glob("*.tar"))[0]) as old:
        members = [
            (member, file.read())
            for member, _ in zip(old, range(3 * EPISODE_SAMPLES), strict=False)
            if (file := old.extractfile(member)) is not None
        ]
    with (path / "memory.tar").open("wb") as file:
        with tarfile.open(fileobj=file, mode="w") as new:
            for _ in range(samples // EPISODE_SAMPLES):
                for member, content in members:
                    new.addfile(member, io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())
    return samples // EPISODE_SAMPLES * EPISODE_SAMPLES


def timed_write(path: Path, write: Callable[[Path], int]) -> float:
    """Samples a second of writing into a fresh folder, which is then removed."""
    begin = time.perf_counter()
    samples = write(path)
    rate = samples / (time.perf_counter() - begin)
    shutil.rmtree(path)
    os.sync()
    return rate


def print_result(result: dict[str, Any]) -> None:
    """A table: medians with minimum and maximum, and the ratio."""
    print(f"{result['workload']}; {result['rounds']} rounds of A B, samples/s: median (min to max)")
    for name, found in result["measurements"].items():
        sides = "  ".join(
            f"{side} {found[side]['median']:9,.0f} ({found[side]['min']:,.0f} to "
            f"{found[side]['max']:,.0f})"
            for side in ("ours", "theirs")
        )
        wanted = f" (wanted {found['wanted']:g})" if found["wanted"] else ""
        print(f"{name:23} {sides}  ratio {found['ratio']:.2f}{wanted}")
    print(f"versions {result['versions']}, machine {result['machine']}")


if __name__ == "__main__":
    main()
