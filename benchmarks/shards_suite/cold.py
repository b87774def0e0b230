"""Reading from the disk, with nothing in the page cache, against plain reads of the same bytes.

- one layer: `dataset.read` of one layer, against `pread` of exactly those runs one after the other,
  as `dd` reads block after block, without the start of a process a run
- all layers: `dataset.read` of the whole field, against `dd bs=1M` of the whole tars; both in
  bytes of the field a second

Before each round the tars are dropped from the cache (`posix_fadvise`, DONTNEED), which needs that
nobody maps them.
"""

import gc
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.shards_suite.content import FIELD, LAYER_BYTES, LAYERS
from jax_bridge.shards import open_dataset
from jax_bridge.shards.index_rows import tensor_column

LAYER = 5
MEGABYTE = 1e6


def sides(path: Path) -> dict[str, dict[str, Callable[[], float]]]:
    """What is compared, each in megabytes of asked-for content a second."""
    return {
        "one layer, cold": {
            "ours": lambda: ours(path, [LAYER]),
            "pread of the same runs": lambda: preads(path),
        },
        "all layers, cold": {
            "ours": lambda: ours(path, None),
            "dd of the tars": lambda: dd(path),
        },
    }


def drop(path: Path) -> None:
    """Takes the tars out of the page cache; they must be on the disk already."""
    gc.collect()
    for tar in (path / "shards").glob("*.tar"):
        descriptor = os.open(tar, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def ours(path: Path, layers: list[int] | None) -> float:
    """Opens and reads in batches."""
    drop(path)
    begin = time.perf_counter()
    dataset = open_dataset(path)
    count = 0
    for batch in dataset.iter_batches(FIELD, batch_size=128, layers=layers):
        count += batch[FIELD].nbytes
    seconds = time.perf_counter() - begin
    assert count == len(dataset) * LAYER_BYTES * (LAYERS if layers is None else len(layers))
    return count / seconds / MEGABYTE


def preads(path: Path) -> float:
    """Reads one run of each sample; where it lies is looked up before."""
    index = open_dataset(path).index
    starts = index[tensor_column("latents.safetensors", FIELD, "offset")].to_numpy()
    shards = index["shard"].to_pylist()
    drop(path)
    begin = time.perf_counter()
    files = {name: os.open(path / "shards" / f"{name}.tar", os.O_RDONLY) for name in set(shards)}
    buffer = memoryview(bytearray(LAYER_BYTES))
    count = 0
    for name, start in zip(shards, starts.tolist(), strict=True):
        count += os.preadv(files[name], [buffer], start + LAYER * LAYER_BYTES)
    seconds = time.perf_counter() - begin
    for descriptor in files.values():
        os.close(descriptor)
    assert count == len(shards) * LAYER_BYTES
    return count / seconds / MEGABYTE


def dd(path: Path) -> float:
    """Reads whole tars into nothing."""
    samples = len(open_dataset(path))
    drop(path)
    begin = time.perf_counter()
    for tar in sorted((path / "shards").glob("*.tar")):
        subprocess.run(["dd", f"if={tar}", "of=/dev/null", "bs=1M", "status=none"], check=True)
    seconds = time.perf_counter() - begin
    return samples * LAYERS * LAYER_BYTES / seconds / MEGABYTE
