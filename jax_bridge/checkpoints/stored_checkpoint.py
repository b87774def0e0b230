"""A checkpoint on disk: its table of contents, and its tensors as rows that are read when asked."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

BLOCK_BYTES = 32 * 2**20
"""How much of a tensor is held at one time where all of it passes by."""
DTYPES: dict[str, np.dtype] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
"""Types that numpy does not know by itself."""


def dtype_of(name: str) -> np.dtype:
    """The numpy type of a name such as `float32` or `bfloat16`.

    Raises:
        TypeError: if there is none.
    """
    return DTYPES[name] if name in DTYPES else np.dtype(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """What the table of contents says about one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.count * dtype_of(self.dtype).itemsize


Rows = Callable[[Any], Any]
"""Reads a slice of a tensor's first axis; `...` gives all, and is the only way for a scalar."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredCheckpoint:
    """The table of contents of a file or folder."""

    path: pathlib.Path
    format: str
    """`orbax`, `safetensors` or `torch`."""
    tensors: dict[str, StoredTensor]
    open_rows: Callable[[str], Rows]
    """Opens one tensor for reading."""
    unsafe: tuple[str, ...] = ()
    """What a pickle names beyond tensors and plain containers; nothing of it was run."""

    @property
    def count(self) -> int:
        """How many numbers all tensors have together."""
        return sum(tensor.count for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """What all tensors take in memory."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def read(self, name: str) -> np.ndarray:
        """One tensor, all of it."""
        return np.asarray(self.open_rows(name)(...))

    def row_step(self, name: str) -> int:
        """How many rows of a tensor fit into `BLOCK_BYTES`; at least one."""
        tensor = self.tensors[name]
        rows = tensor.shape[0] if tensor.shape else 1
        return max(1, BLOCK_BYTES * rows // max(1, tensor.nbytes))

    def blocks(self, name: str, step: int | None = None) -> Iterator[np.ndarray]:
        """One tensor as consecutive slices of its first axis.

        Args:
            name: of the tensor.
            step: rows of a slice; by default as many as `BLOCK_BYTES` hold.
        """
        tensor, step = self.tensors[name], step or self.row_step(name)
        rows = self.open_rows(name)
        if not tensor.shape:
            yield np.asarray(rows(...))
            return
        for start in range(0, tensor.shape[0], step):
            yield np.asarray(rows(slice(start, min(start + step, tensor.shape[0]))))
