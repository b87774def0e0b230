"""`dataset.read` and the data module's batches against webdataset; the page cache is warm.

- read: `dataset.read` of one layer, against `webdataset` decoding the same member and taking it
- batches: the training batches of `LatentDataModule` without workers and with 1 to 4, each copied
  into one tensor that was made before (in pinned memory where there is CUDA), against `webdataset`
  making such batches with as many workers
"""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset as wds

from benchmarks.shards_suite.content import BATCH, FIELD, LAYER_BYTES, LAYERS, decoder
from datamodules.latents import LatentDataModule
from jax_bridge.shards import open_dataset

LAYER = 5
MEMBER = "latents.safetensors"


def read_sides(path: Path, dtype: str) -> dict[str, Callable[[], float]]:
    """One layer of all samples."""
    return {
        "dataset.read": lambda: read_ours(path),
        "webdataset": lambda: read_theirs(path, dtype),
    }


def read_ours(path: Path) -> float:
    """One layer of all samples, a different one each time."""
    dataset = open_dataset(path)
    begin = time.perf_counter()
    for layer in range(LAYERS):
        assert len(dataset.read(FIELD, layers=[layer])) == len(dataset)
    return LAYERS * len(dataset) / (time.perf_counter() - begin)


def read_theirs(path: Path, dtype: str) -> float:
    """The same member decoded from the stream of the tars."""
    load = decoder(dtype)
    begin = time.perf_counter()
    stream = wds.WebDataset(urls(path), shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
    layers = stream.to_tuple(MEMBER).map_tuple(lambda member: load(member)[FIELD][LAYER])
    count = sum(1 for _ in layers)
    return count / (time.perf_counter() - begin)


def urls(path: Path) -> list[str]:
    """The tars."""
    return [str(tar) for tar in sorted((path / "shards").glob("*.tar"))]


def batch_sides(path: Path, dtype: str, workers: int) -> dict[str, Callable[[], float]]:
    """Epochs of batches; workers start in the untimed first round and stay."""
    return {
        "LatentDataModule": functools.partial(timed, ours(path, workers), target(dtype)),
        "webdataset": functools.partial(timed, theirs(path, dtype, workers), target(dtype)),
    }


def target(dtype: str) -> torch.Tensor:
    """Room for one batch."""
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    width = LAYER_BYTES // kind.itemsize
    return torch.empty((BATCH, width), dtype=kind, pin_memory=torch.cuda.is_available())


def timed(epoch: Callable[[], Iterator[torch.Tensor]], room: torch.Tensor) -> float:
    """Samples a second of an epoch that ends in `room`."""
    begin = time.perf_counter()
    count = 0
    for features in epoch():
        room[: len(features)].copy_(features)
        count += len(features)
    return count / (time.perf_counter() - begin)


def ours(path: Path, workers: int) -> Callable[[], Iterator[torch.Tensor]]:
    """Training batches, shuffled over the whole data set."""
    data = LatentDataModule(
        str(path), layer=[LAYER], batch_size=BATCH, target="task_id", num_workers=workers
    )
    data.setup("fit")
    loader = data.train_dataloader()
    return lambda: (batch.features[0].flatten(1) for batch in loader)


def theirs(path: Path, dtype: str, workers: int) -> Callable[[], Iterator[torch.Tensor]]:
    """The same batches, feature and task, in the order of the tars."""
    dataset = (
        wds.WebDataset(urls(path), shardshuffle=False, empty_check=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
        .to_tuple(MEMBER, "json")
        .map_tuple(functools.partial(decoded, dtype), task_of)
        .batched(BATCH)
    )
    loader: Any = wds.WebLoader(  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: (features for features, _ in loader)


def decoded(dtype: str, member: bytes) -> torch.Tensor:
    """One layer of a member."""
    return torch.as_tensor(decoder(dtype)(member)[FIELD][LAYER])


def task_of(member: bytes) -> int:
    """The task of a sample."""
    return json.loads(member)["task_id"]
