"""Reading and writing the header of a safetensors file, BF16 included.

`safetensors.numpy` refuses bfloat16 and copies what it reads; a projected read needs only the
place of one tensor.

Source: github.com/huggingface/safetensors, README, section "Format".
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jax_bridge.shards.bounded_json import load_json

MAX_HEADER_BYTES = 100 * 2**20
MAX_AXES = 32
MAX_TENSOR_BYTES = 2**62

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
CODES: dict[np.dtype, str] = {dtype: code for code, dtype in DTYPES.items()}
SAFE_NAMES = frozenset(dtype.name for dtype in CODES)
"""Names of the dtypes that hold numbers and nothing else."""


class TensorEntry(NamedTuple):
    """One tensor of a file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte from the start of the file."""
    size: int
    """In bytes."""


def encode_header(tensors: Mapping[str, tuple[np.dtype, Sequence[int]]]) -> tuple[bytes, list[str]]:
    """The header of a file of these tensors, and the order in which their bytes follow.

    Wide types come first, so that every tensor is aligned to its own type where the file is.

    Raises:
        ValueError: if a dtype has no safetensors code.
    """
    for name, (dtype, _) in tensors.items():
        if dtype not in CODES:
            raise ValueError(
                f"tensor {name} must have one of the dtypes {', '.join(map(str, CODES))}, "
                f"but got {dtype}."
            )
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    entries: dict[str, Any] = {}
    position = 0
    for name in order:
        dtype, shape = tensors[name]
        end = position + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entries[name] = {
            "dtype": CODES[dtype],
            "shape": list(shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return len(text).to_bytes(8, "little") + text, order


def encode_tensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A whole safetensors file; equal arrays give equal bytes."""
    # ascontiguousarray would turn a scalar into one dimension; the shape is taken before.
    header, order = _cached_header(tuple((n, a.dtype, a.shape) for n, a in arrays.items()))
    parts = [np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8) for name in order]
    return b"".join((header, *(part.data for part in parts)))


@functools.lru_cache(maxsize=64)
def _cached_header(
    tensors: tuple[tuple[str, np.dtype, tuple[int, ...]], ...],
) -> tuple[bytes, list[str]]:
    return encode_header({name: (dtype, shape) for name, dtype, shape in tensors})


def parse_header(start: bytes, file_size: int) -> dict[str, TensorEntry]:
    """Reads a header and checks that it describes exactly the file's bytes.

    Args:
        start: the file's bytes from its start, at least the header.
        file_size: size of the whole file.

    Raises:
        ValueError: if the header is no header, or lies.
    """
    if file_size < 8 or len(start) < 8:
        raise ValueError(f"a safetensors file has at least 8 bytes, but this one {file_size}.")
    length = int.from_bytes(start[:8], "little")
    if length > min(file_size - 8, MAX_HEADER_BYTES) or len(start) < 8 + length:
        raise ValueError(
            f"the safetensors header claims {length} bytes, but the file has {file_size}."
        )
    entries = _load_json(start[8 : 8 + length], file_size)
    entries.pop("__metadata__", None)
    data_start = 8 + length
    parsed = {name: _parse_entry(name, e, data_start) for name, e in entries.items()}
    position = data_start
    for name, entry in sorted(parsed.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start != position:
            raise ValueError(
                f"tensor {_short(name)} starts at {entry.start}, but {position} was due."
            )
        position += entry.size
    if position != file_size:
        raise ValueError(f"the tensors end at {position}, but the file at {file_size}.")
    return parsed


def _load_json(text: bytes, file_size: int) -> dict[str, Any]:
    try:
        entries = load_json(text, file_bytes=file_size, pairs_hook=_unique)
    except ValueError as error:
        raise ValueError(f"the safetensors header is not JSON: {error}.") from error
    if not isinstance(entries, dict):
        raise ValueError("the safetensors header is not a JSON object.")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands twice")
    return entries


def _parse_entry(name: str, entry: object, data_start: int) -> TensorEntry:
    name = _short(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"tensor {name} must have dtype, shape and data_offsets, but got {_short(entry)}."
        )
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    numbers = (entry["shape"], entry["data_offsets"])
    if dtype is None or not all(
        isinstance(n, list) and all(type(i) is int and i >= 0 for i in n) for n in numbers
    ):
        raise ValueError(f"tensor {name} has an unreadable entry {_short(entry)}.")
    shape, offsets = numbers
    if len(shape) > MAX_AXES:
        raise ValueError(f"tensor {name} has {len(shape)} axes, more than {MAX_AXES}.")
    size = dtype.itemsize * math.prod(shape)
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise ValueError(
            f"tensor {name} of {_short(size)} bytes claims the bytes {_short(offsets)}."
        )
    # numpy refuses such a shape even where an axis of length 0 makes it empty.
    if dtype.itemsize * math.prod(max(1, axis) for axis in shape) > MAX_TENSOR_BYTES:
        raise ValueError(f"tensor {name} has an impossible shape {_short(shape)}.")
    return TensorEntry(dtype, tuple(shape), data_start + offsets[0], size)


def _short(value: object) -> str:
    try:
        text = str(value)
    except (RecursionError, ValueError):
        return "what cannot be shown"
    return text if len(text) <= 200 else text[:197] + "..."
