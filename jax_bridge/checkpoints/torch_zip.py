"""Tables of contents of what `torch.save` writes: a zip of one pickle and plain bytes.

The pickle is read without being run (`inert_pickle`), so an untrusted file can be looked at.

Source: PyTorch, `torch/serialization.py` and `torch/_weights_only_unpickler.py`.
"""

import collections
import dataclasses
import math
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_bridge.checkpoints.inert_pickle import InertCall, InertName, PersistentId, read_inert
from jax_bridge.checkpoints.stored_checkpoint import (
    Rows,
    StoredCheckpoint,
    StoredTensor,
    dtype_of,
)

MAX_PICKLE_BYTES = 256 * 2**20
_DAMAGE = (
    AttributeError, KeyError, TypeError, ValueError, NotImplementedError, zipfile.BadZipFile,
)  # fmt: skip
"""What a file of other contents makes the reader raise."""
_NAME_LENGTH_AT = 26
"""Where a member's own header says how long its name and its extra field are."""
STORAGES: dict[str, str] = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
_DTYPES: dict[str, str] = {
    "float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32",
    "short": "int16",
}  # fmt: skip
"""Torch's second names of some types."""
_TENSOR_MAKERS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
)
_SAFE = frozenset(
    {
        *_TENSOR_MAKERS,
        *_WRAPPERS,
        *(f"torch.{name}" for name in STORAGES),
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "collections.OrderedDict",
        "collections.Counter",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        "__builtin__.set",
    }
)
"""Names that `torch.load(weights_only=True)` lets pass, as far as checkpoints use them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tensor lies inside a member of the zip."""

    tensor: StoredTensor
    member: str
    offset: int
    """In numbers."""
    strides: tuple[int, ...]
    """In numbers."""


def is_torch_zip(path: pathlib.Path) -> bool:
    """Whether a file is a zip with a pickle as `torch.save` writes it."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def open_torch_zip(path: pathlib.Path) -> StoredCheckpoint:
    """Reads the pickle, runs nothing of it, and reads no tensor.

    Raises:
        ValueError: if the zip or its pickle is damaged, or holds no tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            entry = archive.getinfo(f"{root}data.pkl")
            if entry.file_size > MAX_PICKLE_BYTES:
                raise ValueError(f"its pickle has {entry.file_size} bytes")
            content = archive.read(entry)
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        tree, names = read_inert(content)
        places = dict(_tensors(tree))
        for place in places.values():
            _require_room(place, sizes.get(f"{root}data/{place.member}", 0))
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise ValueError(
            f"`path` must be a whole checkpoint of torch.save, but got {str(path)!r}: {error}. "
            "Copy or download it again."
        ) from error
    return StoredCheckpoint(
        path=path,
        format="torch",
        tensors={name: place.tensor for name, place in places.items()},
        open_rows=lambda name: _rows(path, f"{root}data/{places[name].member}", places[name]),
        unsafe=tuple(name for name in names if not _is_safe(name)),
    )


def _root(archive: zipfile.ZipFile) -> str | None:
    """The folder of the pickle inside the zip, with its slash."""
    for name in archive.namelist():
        if name.endswith("data.pkl") and name.count("/") <= 1:
            return name.removesuffix("data.pkl")
    return None


def _is_safe(name: str) -> bool:
    module, _, word = name.rpartition(".")
    return name in _SAFE or (module == "torch" and _is_dtype(word))


def _is_dtype(word: str) -> bool:
    try:
        dtype_of(_DTYPES.get(word, word))
    except TypeError:
        return False
    return True


def _tensors(tree: Any) -> Iterator[tuple[str, _Place]]:
    """All tensors with their dotted names; a container that stands twice is looked at once."""
    waiting: collections.deque[tuple[str, Any]] = collections.deque([("", tree)])
    seen: set[int] = set()
    while waiting:
        name, value = waiting.popleft()
        place = _as_tensor(name, value)
        if place is not None:
            yield name, place
            continue
        if id(value) in seen:
            continue
        children = _children(value)
        if children:
            seen.add(id(value))
        waiting += [(f"{name}.{key}" if name else str(key), child) for key, child in children]


def _children(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, InertCall):
        return [*value.items.items(), *_children(value.state)]
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _as_tensor(name: str, value: Any) -> _Place | None:
    """Where a tensor lies; None for what is none."""
    while _calls(value, _WRAPPERS) and value.arguments:
        value = value.arguments[0]
    if not _calls(value, _TENSOR_MAKERS):
        return None
    storage, offset, shape, strides, *rest = value.arguments
    kind, maker, key, *_ = storage.key if isinstance(storage, PersistentId) else ("", None, "")
    if kind != "storage" or not isinstance(maker, InertName) or not isinstance(key, str):
        raise ValueError(f"tensor {name} has no storage")
    dtype = STORAGES.get(maker.name.rpartition(".")[2])
    if value.function.name == _TENSOR_MAKERS[1]:
        word = next((e.name for e in rest if isinstance(e, InertName)), "").rpartition(".")[2]
        dtype = _DTYPES.get(word, word)
    numbers = (offset, *shape, *strides)
    if dtype is None or len(shape) != len(strides) or not all(_is_size(n) for n in numbers):
        raise ValueError(f"tensor {name} has an unknown type or impossible sizes")
    tensor = StoredTensor(name=name, dtype=dtype_of(dtype).name, shape=tuple(shape))
    return _Place(tensor=tensor, member=key, offset=offset, strides=tuple(strides))


def _calls(value: Any, names: tuple[str, ...]) -> bool:
    return (
        isinstance(value, InertCall)
        and isinstance(value.function, InertName)
        and value.function.name in names
        and isinstance(value.arguments, tuple)
    )


def _is_size(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < 2**62


def _require_room(place: _Place, size: int) -> None:
    """Raises if a tensor reaches beyond its bytes."""
    tensor, itemsize = place.tensor, dtype_of(place.tensor.dtype).itemsize
    last = sum((n - 1) * s for n, s in zip(tensor.shape, place.strides, strict=True))
    if math.prod(tensor.shape) and (place.offset + last + 1) * itemsize > size:
        raise ValueError(f"tensor {tensor.name} reaches beyond its {size} bytes")


def _rows(path: pathlib.Path, member: str, place: _Place) -> Rows:
    tensor, dtype = place.tensor, dtype_of(place.tensor.dtype)
    if not tensor.count:
        return np.zeros(tensor.shape, dtype).__getitem__
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"`path` must hold its tensors uncompressed, but got {str(path)!r}.")
    with path.open("rb") as file:
        file.seek(info.header_offset + _NAME_LENGTH_AT)
        lengths = file.read(4)
    name_length, extra_length = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
    start = info.header_offset + _NAME_LENGTH_AT + 4 + name_length + extra_length
    numbers = np.memmap(
        path, dtype, mode="r", offset=start, shape=(info.file_size // dtype.itemsize,)
    )
    return np.lib.stride_tricks.as_strided(
        numbers[place.offset :],
        tensor.shape,
        tuple(stride * dtype.itemsize for stride in place.strides),
        writeable=False,
    ).__getitem__
