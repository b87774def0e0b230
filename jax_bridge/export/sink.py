"""What every format of an export does, and what it is told."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa


class Column(NamedTuple):
    """One exported array: a field, or a robot tensor."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    """Of one sample."""


@runtime_checkable
class Sink(Protocol):
    """Takes batches in the order of the rows; `close` makes the files whole."""

    def append(self, metadata: pa.Table, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows: their metadata, and [n, ...] of every column."""
        ...

    def close(self) -> None:
        """Ends the files."""
        ...


@runtime_checkable
class MakeSink(Protocol):
    """Opens the files of a format in a folder."""

    robot: tuple[str, ...]
    """Robot tensors that the format wants where the data set has them."""

    def __call__(
        self, folder: pathlib.Path, columns: tuple[Column, ...], rows: int, fps: float
    ) -> Sink:
        """Makes the sink of an export of so many rows."""
        ...


def widened(dtype: np.dtype) -> np.dtype:
    """The type for readers that do not know bfloat16: float32 holds each of its values."""
    return np.dtype(np.float32) if dtype.name == "bfloat16" else dtype
