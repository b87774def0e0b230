"""One layer of every sample, in batches, out of five kinds of files with the same content.

Each side opens its files and gives tensors [batch, width] of one layer and the task of each
sample; nothing is shuffled, no worker runs, the page cache is warm. Those that can take one layer
(ours, HDF5) go through all layers after one opening; for the others each layer costs the same.

- ours: `dataset.iter_batches`
- webdataset: the same tars, decoding the member and taking the layer
- LitData: `optimize` in chunks of 64 MB and `StreamingDataset`, where it is installed
- HDF5: one array [sample, layer, width] with a chunk a sample, and with a chunk a layer
- pickle: one file a sample
"""

import importlib.util
import itertools
import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds

from benchmarks.shards_suite.content import BATCH, FIELD, LAYERS, decoder
from jax_bridge.shards import ShardDataset, open_dataset

LAYER = 5
Batch = tuple[torch.Tensor, torch.Tensor]


def sides(path: Path, dtype: str, folder: Path) -> dict[str, Callable[[], float]]:
    """Writes the same content in every form; returns what reads it, by name."""
    dataset = open_dataset(path)
    found: dict[str, Callable[[], Iterator[Batch]]] = {
        "ours": lambda: ours(path),
        "webdataset": lambda: webdataset(path, dtype),
        **hdf5_sides(dataset, folder, dtype),
        **pickle_sides(dataset, folder),
        **litdata_sides(dataset, folder),
    }
    return {name: lambda r=read: rate(r, len(dataset)) for name, read in found.items()}


def rate(read: Callable[[], Iterator[Batch]], samples: int) -> float:
    """Layers of a sample a second, the opening included."""
    begin = time.perf_counter()
    count = 0
    for values, tasks in read():
        assert values.ndim == 2
        assert len(values) == len(tasks)
        count += len(values)
    assert count in (samples, LAYERS * samples)
    return count / (time.perf_counter() - begin)


def samples_of(dataset: ShardDataset) -> Iterator[tuple[np.ndarray, int]]:
    """All layers of each sample, and its task."""
    tasks = dataset.index["task_id"].to_pylist()
    for batch in dataset.iter_batches(FIELD, batch_size=16):
        for values, row in zip(batch[FIELD], batch["rows"], strict=True):
            yield values, tasks[row]


def plain(values: np.ndarray) -> np.ndarray:
    """What files that do not know bfloat16 hold: its two bytes."""
    return values.view(np.uint16) if values.dtype.name == "bfloat16" else values


def as_tensor(values: np.ndarray, dtype: str) -> torch.Tensor:
    """A tensor of the data's own dtype."""
    found = torch.from_numpy(values)
    return found.view(torch.bfloat16) if dtype == "bfloat16" else found


def ours(path: Path) -> Iterator[Batch]:
    """Through the index."""
    dataset = open_dataset(path)
    tasks = torch.from_numpy(dataset.index["task_id"].to_numpy().copy())
    dtype = dataset.fields[FIELD].dtype
    for layer in range(LAYERS):
        for batch in dataset.iter_batches(FIELD, batch_size=BATCH, layers=[layer]):
            rows = torch.from_numpy(batch["rows"])
            yield as_tensor(plain(batch[FIELD][:, 0]), dtype), tasks[rows]


def webdataset(path: Path, dtype: str) -> Iterator[Batch]:
    """As its documentation shows."""
    load = decoder(dtype)
    urls = [str(tar) for tar in sorted((path / "shards").glob("*.tar"))]
    yield from (
        wds.WebDataset(urls, shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
        .to_tuple("latents.safetensors", "json")
        .map_tuple(
            lambda member: torch.as_tensor(load(member)[FIELD][LAYER]),
            lambda member: json.loads(member)["task_id"],
        )
        .batched(BATCH)
        .map_tuple(lambda values: values, torch.as_tensor)
    )


def hdf5_sides(
    dataset: ShardDataset, folder: Path, dtype: str
) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Two ways to cut the same array into chunks; nothing where h5py is not installed."""
    if importlib.util.find_spec("h5py") is None:
        return {}
    import h5py  # pyright: ignore[reportMissingImports] -- of the extra `benchmarks`

    shape = dataset.fields[FIELD].shape
    kind = plain(np.empty(0, dataset.fields[FIELD].numpy_dtype)).dtype

    def write(name: str, chunks: tuple[int, ...]) -> Path:
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            values = file.create_dataset("values", (len(dataset), *shape), kind, chunks=chunks)
            tasks = file.create_dataset("task_id", (len(dataset),), np.int64)
            for row, (sample, task) in enumerate(samples_of(dataset)):
                values[row], tasks[row] = plain(sample), task
        return path

    def read(path: Path) -> Iterator[Batch]:
        with h5py.File(path) as file:
            values: Any = file["values"]
            tasks: Any = file["task_id"]
            starts = range(0, len(dataset), BATCH)
            for layer, start in itertools.product(range(LAYERS), starts):
                part = values[start : start + BATCH, layer]
                yield as_tensor(part, dtype), torch.from_numpy(tasks[start : start + BATCH])

    paths = {
        "HDF5, a chunk a sample": write("samples", (1, *shape)),
        "HDF5, a chunk a layer": write("layers", (1, 1, *shape[1:])),
    }
    return {name: lambda p=path: read(p) for name, path in paths.items()}


def pickle_sides(dataset: ShardDataset, folder: Path) -> dict[str, Callable[[], Iterator[Batch]]]:
    """One file a sample, as quick scripts do; only ever of what was written here."""
    place = folder / "pickles"
    place.mkdir()
    for row, (values, task) in enumerate(samples_of(dataset)):
        content = {"values": plain(values), "task_id": task}
        (place / f"{row:06d}.pkl").write_bytes(pickle.dumps(content, protocol=5))
    dtype = dataset.fields[FIELD].dtype

    def read() -> Iterator[Batch]:
        paths = sorted(place.iterdir())
        for start in range(0, len(paths), BATCH):
            found = [pickle.loads(path.read_bytes()) for path in paths[start : start + BATCH]]
            values = np.stack([one["values"][LAYER] for one in found])
            yield as_tensor(values, dtype), torch.tensor([one["task_id"] for one in found])

    return {"pickle, a file a sample": read}


def litdata_sides(dataset: ShardDataset, folder: Path) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Chunks of 64 MB, read in order; nothing where LitData is not installed."""
    if importlib.util.find_spec("litdata") is None:
        return {}
    warnings.filterwarnings("ignore", module="litdata")
    from litdata.streaming import StreamingDataset  # pyright: ignore[reportMissingImports]
    from litdata.streaming.cache import Cache  # pyright: ignore[reportMissingImports]

    place = str(folder / "litdata")
    cache = Cache(place, chunk_bytes=64 * 2**20)
    for row, (values, task) in enumerate(samples_of(dataset)):
        cache[row] = {"values": plain(values), "task_id": task}
    cache.done()
    cache.merge()
    dtype = dataset.fields[FIELD].dtype

    def read() -> Iterator[Batch]:
        streamed = StreamingDataset(place, shuffle=False)
        values: list[np.ndarray] = []
        tasks: list[int] = []
        for sample in streamed:
            values.append(sample["values"][LAYER])
            tasks.append(sample["task_id"])
            if len(values) == BATCH:
                yield as_tensor(np.stack(values), dtype), torch.tensor(tasks)
                values, tasks = [], []
        if values:
            yield as_tensor(np.stack(values), dtype), torch.tensor(tasks)

    return {"LitData": read}
