"""openpi's wire format: msgpack in which an array is a small map of bytes, type and shape.

Only booleans, integers, floats and text can be arrays; nothing is ever unpickled, and no byte of
a message is believed before it was checked.

Source: openpi, `packages/openpi-client/src/openpi_client/msgpack_numpy.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
"""What marks a map as an array or as one number of numpy's."""
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|U\d{1,5})")
_MAX_ENTRIES = 4096
"""Of one list or map: msgpack makes room for as many as a message claims to have."""
_MAX_DEPTH = 16


class WireError(ValueError):
    """A message that is not openpi's."""


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as bytes.

    bfloat16 goes out as float32, which holds it exactly: clients know no other 16 bits than
    float16.

    Raises:
        ValueError: if a value is neither plain nor an array of numbers.
    """
    content = msgpack.packb(message, default=_packed)
    assert content is not None
    return content


def decode(content: bytes) -> dict[str, Any]:
    """The message in some bytes; its arrays cannot be written to.

    Raises:
        WireError: if the bytes are not msgpack, or hold what the format does not have.
    """
    try:
        message = msgpack.unpackb(
            content, object_hook=_unpacked, ext_hook=_no_extension,
            max_array_len=_MAX_ENTRIES, max_map_len=_MAX_ENTRIES,
        )  # fmt: skip
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = f"{type(error).__name__} {str(error)[:200]}".strip()
        raise WireError(f"A message must be msgpack as openpi writes it, but: {reason}.") from error
    if not isinstance(message, dict):
        raise WireError(f"A message must be a map, but got {type(message).__name__}.")
    _check_nesting(message, _MAX_DEPTH)
    return message


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.name == "bfloat16":
        value = value.astype(np.float32)
    if isinstance(value, np.ndarray | np.generic) and not _DTYPE.fullmatch(value.dtype.str):
        raise ValueError(
            f"A message must hold arrays of numbers or text, but got dtype {value.dtype}."
        )
    if isinstance(value, np.ndarray):
        content = value.tobytes()
        return {ARRAY: True, b"data": content, b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise ValueError(f"A message must hold plain values and arrays, but got {type(value)}.")


def _unpacked(entry: dict[Any, Any]) -> Any:
    if ARRAY in entry:
        return _array(entry)
    if SCALAR in entry:
        return _scalar(entry)
    return entry


def _array(entry: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(entry), entry.get(b"data"), entry.get(b"shape")
    if not isinstance(data, bytes):
        raise WireError(f"An array must have its bytes, but got {type(data).__name__}.")
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(_is_size, shape)):
        raise WireError(f"An array must have a shape of sizes, but got {str(shape)[:80]}.")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != len(data):
        raise WireError(
            f"An array of {dtype} {tuple(shape)} must have {count * dtype.itemsize} bytes, but "
            f"got {len(data)}."
        )
    if dtype.kind == "b":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    values = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    return values.reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _scalar(entry: dict[Any, Any]) -> np.generic:
    dtype, data = _dtype(entry), entry.get(b"data")
    kinds = {"U": str, "f": int | float, "b": bool}
    if not isinstance(data, kinds.get(dtype.kind, int)):
        raise WireError(f"A number of {dtype} must be one, but got {type(data).__name__}.")
    return dtype.newbyteorder("=").type(data)


def _dtype(entry: dict[Any, Any]) -> np.dtype:
    name = entry.get(b"dtype")
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(
            f"An array must hold booleans, integers, floats or text, but got dtype "
            f"{str(name)[:40]!r}."
        )
    return np.dtype(name)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"A message must hold no extension types, but got {code}.")


def _check_nesting(value: Any, depth: int) -> None:
    if depth == 0:
        raise WireError(f"A message must not be nested deeper than {_MAX_DEPTH}.")
    for entry in value.values() if isinstance(value, dict) else value:
        if isinstance(entry, dict | list):
            _check_nesting(entry, depth - 1)
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise WireError("A message's keys must be text, but got bytes.")
