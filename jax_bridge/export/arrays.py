"""One file a field: npy, or safetensors. Rows are described in `rows.parquet`."""

import pathlib
from collections.abc import Mapping
from typing import BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jax_bridge.export.sink import Column, widened
from jax_bridge.shards.safetensors_header import encode_header

ROWS = "rows.parquet"
"""Metadata of each row, in the order of the arrays."""


class ArrayFiles:
    """Arrays [row, ...], written row after row behind a header of known size."""

    robot: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, folder: pathlib.Path, columns: tuple[Column, ...], rows: int, fps: float
    ) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._dtypes: dict[str, np.dtype] = {}
        self._rows: pq.ParquetWriter | None = None
        for column in columns:
            self._dtypes[column.name] = self.dtype(column)
            file = (folder / f"{column.name}.{self.suffix}").open("wb")
            self._files[column.name] = file
            self.header(file, column, (rows, *column.shape))

    suffix: ClassVar[str]

    @staticmethod
    def dtype(column: Column) -> np.dtype:
        """The type in the file."""
        raise NotImplementedError

    @staticmethod
    def header(file: BinaryIO, column: Column, shape: tuple[int, ...]) -> None:
        """Writes what stands before the numbers."""
        raise NotImplementedError

    def append(self, metadata: pa.Table, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows."""
        if self._rows is None:
            self._rows = pq.ParquetWriter(self._folder / ROWS, metadata.schema)
        self._rows.write_table(metadata)
        for name, array in arrays.items():
            values = np.ascontiguousarray(array, self._dtypes[name])
            self._files[name].write(values.view(np.uint8).data if values.size else b"")

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()
        if self._rows is not None:
            self._rows.close()


class NpyFiles(ArrayFiles):
    """`FIELD.npy`; bfloat16, which npy does not know, becomes float32."""

    suffix = "npy"

    @staticmethod
    def dtype(column: Column) -> np.dtype:
        """float32 for bfloat16, else as stored."""
        return widened(column.dtype)

    @staticmethod
    def header(file: BinaryIO, column: Column, shape: tuple[int, ...]) -> None:
        """Npy's own."""
        about = {
            "descr": np.lib.format.dtype_to_descr(widened(column.dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_2_0(file, about)


class SafetensorsFiles(ArrayFiles):
    """`FIELD.safetensors` with one tensor of that name, in the type that was stored."""

    suffix = "safetensors"

    @staticmethod
    def dtype(column: Column) -> np.dtype:
        """As stored."""
        return column.dtype

    @staticmethod
    def header(file: BinaryIO, column: Column, shape: tuple[int, ...]) -> None:
        """Safetensors' own."""
        file.write(encode_header({column.name: (column.dtype, shape)})[0])
