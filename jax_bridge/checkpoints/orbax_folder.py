"""Tables of contents of Orbax folders as openpi writes them, read without orbax or jax.

The folder's `_METADATA` names the leaves; shapes and types stand beside each array in Zarr's own
words, most often inside one OCDBT key-value store.

Source: Orbax, `PyTreeCheckpointHandler`; Zarr, storage specification 2; tensorstore, OCDBT.
"""

import contextlib
import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_bridge.checkpoints.stored_checkpoint import (
    Rows,
    StoredCheckpoint,
    StoredTensor,
    dtype_of,
)

METADATA = "_METADATA"
WRAPPER = "params"
"""openpi keeps the tree under this key."""
_SLICE_BYTES = 64 * 2**20
"""Decoded bytes that are held of an array while it is read."""
_RANGE_BYTES = 16 * 2**20
"""Stored bytes that are held of a chunk that is decoded as it comes."""


def is_orbax(path: pathlib.Path) -> bool:
    """Whether a folder is one of Orbax's, or holds one called `params`."""
    return any((folder / METADATA).is_file() for folder in (path, path / WRAPPER))


def open_orbax(path: pathlib.Path) -> StoredCheckpoint:
    """Reads names, shapes and types, and no array.

    Raises:
        ValueError: if the folder is damaged.
    """
    folder = OrbaxFolder(path if (path / METADATA).is_file() else path / WRAPPER)
    return StoredCheckpoint(
        path=path, format="orbax", tensors=folder.tensors, open_rows=folder.rows
    )  # fmt: skip


class OrbaxFolder:
    """An Orbax folder, whose arrays are read in slices.

    Args:
        path: the folder with the file `_METADATA`.

    Raises:
        ValueError: if it is damaged.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        with _naming_damage(path):
            about = json.loads((path / METADATA).read_text())
            leaves = ["/".join(_keys(entry)) for entry in about["tree_metadata"].values()]
            self._zarr3 = bool(about.get("use_zarr3"))
            self.wrapped = bool(leaves) and all(leaf.startswith(f"{WRAPPER}/") for leaf in leaves)
            """Whether all leaves are below openpi's key."""
            self._places = {name: leaf.replace("/", ".") for leaf, name in _short(leaves).items()}
            self._about = self._described()
        self.tensors: dict[str, StoredTensor] = {
            name: StoredTensor(
                name=name, dtype=_dtype(self._about[name]), shape=tuple(self._about[name]["shape"])
            )
            for name in sorted(self._places)
        }

    def rows(self, name: str) -> Rows:
        """Opens an array for reading slices of its first axis."""
        array = self._open(name)
        return lambda rows: array[rows].read().result()

    def fill(self, name: str, out: np.ndarray) -> None:
        """Reads an array into another one, of any type, with little memory beside it.

        A chunk that is larger than a slice is decoded as it comes, where it holds all of the
        array; otherwise it is held whole for a moment.

        Raises:
            ValueError: if the array is damaged.
        """
        assert out.flags.c_contiguous
        with _naming_damage(self.path):
            if self._is_one_large_chunk(name):
                self._stream(name, out)
                return
            array = self._open(name)
            if not out.shape:
                out[...] = array.read().result()
                return
            chunk = array.chunk_layout.read_chunk.shape[0]
            row_bytes = max(1, self.tensors[name].nbytes // max(1, out.shape[0]))
            step = max(1, _SLICE_BYTES // row_bytes // chunk) * chunk
            for start in range(0, out.shape[0], step):
                stop = min(start + step, out.shape[0])
                out[start:stop] = array[start:stop].read().result()

    def _open(self, name: str) -> Any:
        import tensorstore

        return tensorstore.open(
            {
                "driver": "zarr3" if self._zarr3 else "zarr",
                "kvstore": _store(self.path, self._places[name]),
            },
            read=True,
            context=tensorstore.Context({"cache_pool": {"total_bytes_limit": 0}}),
        ).result()

    def _described(self) -> dict[str, dict[str, Any]]:
        """Zarr's own words on every array."""
        import tensorstore

        store = tensorstore.KvStore.open(_store(self.path)).result()
        file = "zarr.json" if self._zarr3 else ".zarray"
        waiting = {name: store.read(f"{at}/{file}") for name, at in self._places.items()}
        found = {}
        for name, reply in waiting.items():
            value = reply.result().value
            if not value:
                raise ValueError(f"{self._places[name]}/{file} is missing")
            found[name] = json.loads(value)
            _dtype(found[name])
        return found

    def _is_one_large_chunk(self, name: str) -> bool:
        entry = self._about[name]
        return (
            not self._zarr3
            and entry["chunks"] == entry["shape"]
            and (entry.get("compressor") or {}).get("id") == "zstd"
            and not entry.get("filters")
            and entry.get("order") == "C"
            and self.tensors[name].nbytes > _SLICE_BYTES
        )

    def _stream(self, name: str, out: np.ndarray) -> None:
        """Decodes a chunk that is all of an array, piece by piece."""
        import pyarrow

        dtype, flat = dtype_of(self.tensors[name].dtype), out.reshape(-1)
        step = _SLICE_BYTES // dtype.itemsize
        chunk = pyarrow.PythonFile(self._chunk(name), mode="r")
        with pyarrow.CompressedInputStream(chunk, "zstd") as stream:
            for start in range(0, flat.size, step):
                stop = min(start + step, flat.size)
                content = stream.read((stop - start) * dtype.itemsize)
                if len(content) != (stop - start) * dtype.itemsize:
                    raise ValueError(f"{name} ends too early")
                flat[start:stop] = np.frombuffer(content, dtype)

    def _chunk(self, name: str) -> "_ChunkFile":
        import tensorstore

        mark = self._about[name].get("dimension_separator", ".")
        store = tensorstore.KvStore.open(_store(self.path, self._places[name])).result()
        return _ChunkFile(store, mark.join("0" * len(self.tensors[name].shape)))


class _ChunkFile(io.RawIOBase):
    """A stored chunk as a file."""

    def __init__(self, store: Any, key: str) -> None:
        self._store, self._key, self._at = store, key, 0
        self._held = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most so many; none at the end."""
        if not self._held and not self._ended:
            self._held = memoryview(self._next())
        piece = self._held[: size if size >= 0 else None]
        self._held = self._held[len(piece) :]
        return bytes(piece)

    def _next(self) -> bytes:
        start, stop = self._at, self._at + _RANGE_BYTES
        self._at = stop
        try:
            return self._store.read(self._key, byte_range=slice(start, stop)).result().value
        except ValueError:  # fewer bytes than that are left
            self._ended = True
            return self._store.read(self._key, byte_range=slice(start, None)).result().value


@contextlib.contextmanager
def _naming_damage(folder: pathlib.Path) -> Iterator[None]:
    """Says in one sentence which folder could not be read."""
    try:
        yield
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must be a whole Orbax folder, but {str(folder)!r} could not be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Copy or download it "
            "again."
        ) from error


def _dtype(entry: dict[str, Any]) -> str:
    word = entry["data_type"] if "data_type" in entry else entry["dtype"]
    return dtype_of(word.lstrip("<>|=")).name


def _keys(entry: dict[str, Any]) -> list[str]:
    return [str(key["key"]) for key in entry["key_metadata"]]


def _short(leaves: list[str]) -> dict[str, str]:
    """Without openpi's wrapper, and without flax's last key `value` where all leaves have it."""
    wrapped = all(leaf.startswith(f"{WRAPPER}/") for leaf in leaves)
    short = {leaf: leaf.removeprefix(f"{WRAPPER}/") if wrapped else leaf for leaf in leaves}
    if all(leaf.endswith("/value") for leaf in leaves):
        short = {leaf: name.removesuffix("/value") for leaf, name in short.items()}
    return short


def _store(folder: pathlib.Path, name: str = "") -> dict[str, Any]:
    inside = f"{name}/" if name else ""
    if (folder / "manifest.ocdbt").is_file():
        return {"driver": "ocdbt", "base": f"{folder.absolute().as_uri()}/", "path": inside}
    return {"driver": "file", "path": f"{folder.absolute()}/{inside}"}
