"""Tables of contents of Orbax folders as openpi writes them, read without orbax or jax.

The folder's `_METADATA` names the leaves; shapes and types stand beside each array in Zarr's own
words, most often inside one OCDBT key-value store.

Source: Orbax, `PyTreeCheckpointHandler`; Zarr, storage specification 2; tensorstore, OCDBT.
"""

import json
import pathlib
from typing import Any

from jax_bridge.checkpoints.stored_checkpoint import (
    Rows,
    StoredCheckpoint,
    StoredTensor,
    dtype_of,
)

METADATA = "_METADATA"
WRAPPER = "params"
"""openpi keeps the tree under this key."""
_CACHE_BYTES = 0
"""Each slice is read once."""


def is_orbax(path: pathlib.Path) -> bool:
    """Whether a folder is one of Orbax's, or holds one called `params`."""
    return any((folder / METADATA).is_file() for folder in (path, path / WRAPPER))


def open_orbax(path: pathlib.Path) -> StoredCheckpoint:
    """Reads names, shapes and types, and no array.

    Raises:
        ValueError: if the folder is damaged.
    """
    folder = path if (path / METADATA).is_file() else path / WRAPPER
    try:
        about = json.loads((folder / METADATA).read_text())
        leaves = ["/".join(_keys(entry)) for entry in about["tree_metadata"].values()]
        stored = {leaf: leaf.replace("/", ".") for leaf in leaves}
        described = _describe(folder, list(stored.values()), zarr3=bool(about.get("use_zarr3")))
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must be a whole Orbax folder, but {str(folder)!r} could not be read "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). Copy or download it "
            "again."
        ) from error
    short = _short_names(leaves)
    places = {short[leaf]: stored[leaf] for leaf in leaves}
    return StoredCheckpoint(
        path=path,
        format="orbax",
        tensors={
            name: StoredTensor(name=name, dtype=described[place][0], shape=described[place][1])
            for name, place in sorted(places.items())
        },
        open_rows=lambda name: _rows(folder, places[name], zarr3=bool(about.get("use_zarr3"))),
    )


def _keys(entry: dict[str, Any]) -> list[str]:
    return [str(key["key"]) for key in entry["key_metadata"]]


def _short_names(leaves: list[str]) -> dict[str, str]:
    """Without openpi's wrapper, and without flax's last key `value` where all leaves have it."""
    wrapped = all(leaf.startswith(f"{WRAPPER}/") for leaf in leaves)
    short = {leaf: leaf.removeprefix(f"{WRAPPER}/") if wrapped else leaf for leaf in leaves}
    if all(leaf.endswith("/value") for leaf in leaves):
        short = {leaf: name.removesuffix("/value") for leaf, name in short.items()}
    return short


def _describe(
    folder: pathlib.Path, arrays: list[str], *, zarr3: bool
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every array."""
    import tensorstore

    store = tensorstore.KvStore.open(_store(folder)).result()
    file = "zarr.json" if zarr3 else ".zarray"
    waiting = {name: store.read(f"{name}/{file}") for name in arrays}
    found = {}
    for name, reply in waiting.items():
        value = reply.result().value
        if not value:
            raise ValueError(f"{name}/{file} is missing")
        entry = json.loads(value)
        word = entry["data_type"] if zarr3 else entry["dtype"].lstrip("<>|=")
        found[name] = (dtype_of(word).name, tuple(map(int, entry["shape"])))
    return found


def _store(folder: pathlib.Path, name: str = "") -> dict[str, Any]:
    base = folder.absolute().as_uri() + "/"
    if (folder / "manifest.ocdbt").is_file():
        return {"driver": "ocdbt", "base": base, "path": f"{name}/" if name else ""}
    return {"driver": "file", "path": f"{folder.absolute()}/{name}/" if name else f"{folder}/"}


def _rows(folder: pathlib.Path, name: str, *, zarr3: bool) -> Rows:
    import tensorstore

    array = tensorstore.open(
        {"driver": "zarr3" if zarr3 else "zarr", "kvstore": _store(folder, name)},
        read=True,
        context=tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}}),
    ).result()
    return lambda rows: array[rows].read().result()
