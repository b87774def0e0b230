"""What a pickle of numpy arrays calls, done by hand: nothing here trusts its arguments.

Source: numpy's `ndarray.__reduce__`, `ndarray.__reduce_ex__(5)`, `dtype.__reduce__` and
`generic.__reduce__`.
"""

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import UInt8

KINDS = "biufcSU"
"""Kinds of dtypes: numbers, booleans and texts; never objects, which are pickles themselves."""


class StoredBytes:
    """Bytes that a spool keeps."""

    def __init__(self, content: UInt8[np.ndarray, " size"]) -> None:
        self.content = content


class StoredType:
    """A dtype while it is being read."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def build(self, state: Any) -> None:
        """Takes the byte order from a dtype's state; the rest must say nothing."""
        order = state[1]
        if any(part is not None for part in state[2:5]):
            raise ValueError("it holds arrays of records")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class StoredArray:
    """An array whose bytes a spool keeps; complete once the file is read."""

    def __init__(self) -> None:
        self._content: UInt8[np.ndarray, " size"] | None = None
        self._dtype = np.dtype(np.uint8)
        self._shape: tuple[int, ...] = ()
        self._order: str = "C"

    def build(self, state: Any) -> None:
        """Takes what `ndarray.__setstate__` takes: version, shape, dtype, Fortran order, bytes."""
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: str) -> None:
        """Says what the bytes are.

        Raises:
            ValueError: if they do not fit.
        """
        if not isinstance(dtype, StoredType):
            raise TypeError("an array has no dtype")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not all(type(n) is int and n >= 0 for n in shape) or order not in ("C", "F"):
            raise ValueError(f"an array has shape {shape} and order {order}")
        stored = as_bytes(content)
        if stored.size != math.prod(shape) * dtype.dtype.itemsize:
            raise ValueError(f"{stored.size} bytes do not make {dtype.dtype} {shape}")
        self._content, self._dtype, self._shape, self._order = stored, dtype.dtype, shape, order

    @property
    def array(self) -> np.ndarray:
        """The array; read-only, and on disk where the spool put it there."""
        if self._content is None:
            raise ValueError("an array has no content")
        return self._content.view(self._dtype).reshape(self._shape, order=self._order)  # pyright: ignore[reportCallIssue, reportArgumentType] -- C or F

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._shape


def as_bytes(content: Any) -> UInt8[np.ndarray, " size"]:
    """Bytes, as a pickle of any protocol spells them.

    Raises:
        TypeError: if they are a list of objects.
    """
    if isinstance(content, StoredBytes):
        return content.content
    if isinstance(content, str):  # Python 2
        content = content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError("it holds arrays of objects")
    return np.frombuffer(content, np.uint8)


def ndarray(*arguments: Any) -> None:
    """Refuses: an array is made by `reconstruct`."""
    raise TypeError("it makes an array by its shape alone")


def reconstruct(subtype: Any, shape: Any, kind: Any) -> StoredArray:
    """`numpy._core.multiarray._reconstruct`: an empty array, filled by its state."""
    if subtype is not ndarray:
        raise TypeError("it holds a subclass of numpy.ndarray")
    return StoredArray()


def frombuffer(content: Any, dtype: Any, shape: Any, order: str) -> StoredArray:
    """`numpy._core.numeric._frombuffer`."""
    array = StoredArray()
    array.fill(content, dtype, shape, order)
    return array


def dtype(name: Any, *_: Any) -> StoredType:
    """`numpy.dtype`.

    Raises:
        ValueError: for objects, records, dates.
    """
    if name is bfloat16:
        return StoredType(np.dtype(ml_dtypes.bfloat16))
    made = np.dtype(str(name)) if isinstance(name, str) else np.dtype("V0")
    if made.kind not in KINDS or made.names is not None or made.subdtype is not None:
        raise ValueError(f"it holds arrays of dtype {name}")
    return StoredType(made)


def bfloat16(*_: Any) -> None:
    """Refuses: `ml_dtypes.bfloat16` is named and never called."""
    raise TypeError("it makes a bfloat16 out of something")


def scalar(of: Any, content: Any) -> np.generic:
    """`numpy._core.multiarray.scalar`."""
    array = StoredArray()
    array.fill(content, of, (), "C")
    return array.array.reshape(1)[0]


def encode(text: Any, coding: Any = None) -> bytes:
    """`_codecs.encode`, by which protocols 0 to 2 spell bytes."""
    if coding != "latin1" or not isinstance(text, str):
        raise TypeError("it calls _codecs.encode for something else than bytes")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """`bytes()`, by which protocols 0 to 2 spell empty ones; it takes no argument here."""
    return b""


def of_items(make: type) -> Any:
    """A container out of a list of its items, as old protocols spell it."""

    def container(items: Sequence[Any] = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise TypeError("it makes a container out of something else than a list")
        return make(items)

    return container
