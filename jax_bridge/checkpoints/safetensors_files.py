"""Tables of contents of safetensors: one file, or the several of a model that was cut in parts."""

import pathlib

import numpy as np

from jax_bridge.checkpoints.stored_checkpoint import Rows, StoredCheckpoint, StoredTensor
from jax_bridge.shards.safetensors_header import MAX_HEADER_BYTES, TensorEntry, parse_header


def is_safetensors(path: pathlib.Path) -> bool:
    """Whether a path is such a file, or a folder with some."""
    if path.is_dir():
        return any(path.glob("*.safetensors"))
    return path.suffix == ".safetensors"


def open_safetensors(path: pathlib.Path) -> StoredCheckpoint:
    """Reads the headers, and no tensor.

    Raises:
        ValueError: if a header is damaged, or two files hold a tensor of the same name.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    places: dict[str, tuple[pathlib.Path, TensorEntry]] = {}
    for file in files:
        for name, entry in _header(file).items():
            if name in places:
                raise ValueError(
                    f"`path` must hold each tensor once, but got {name!r} in both "
                    f"{places[name][0].name} and {file.name}. Name the file that is meant."
                )
            places[name] = (file, entry)
    return StoredCheckpoint(
        path=path,
        format="safetensors",
        tensors={
            name: StoredTensor(name=name, dtype=entry.dtype.name, shape=entry.shape)
            for name, (_, entry) in sorted(places.items())
        },
        open_rows=lambda name: _rows(*places[name]),
    )


def _header(file: pathlib.Path) -> dict[str, TensorEntry]:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = min(int.from_bytes(start, "little"), MAX_HEADER_BYTES)
        start += stream.read(length)
    try:
        return parse_header(start, file.stat().st_size)
    except ValueError as error:
        raise ValueError(
            f"`path` must be a whole safetensors file, but got {str(file)!r}: {error} Copy or "
            "download it again."
        ) from error


def _rows(file: pathlib.Path, entry: TensorEntry) -> Rows:
    if entry.size == 0:
        return np.zeros(entry.shape, entry.dtype).__getitem__
    shape = entry.shape or (1,)
    array = np.memmap(file, entry.dtype, mode="r", offset=entry.start, shape=shape)
    return array.reshape(entry.shape).__getitem__
