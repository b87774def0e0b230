"""Reads the suites' initial states: pickled numpy arrays, taken apart without running them.

Letters: e episode (one start); n numbers of a flattened mujoco state (time, positions,
velocities).
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

_MAX_BYTES = 64 * 2**20
"""Of one file's pickle; the largest of the benchmark has 0.1 MB."""


def read_init_states(path: Path) -> Float64[np.ndarray, "e n"]:
    """The initial states in a file that `torch.save` wrote from a float64 array.

    A pickle can name any function to be called. Here, the few names that stand for a numpy
    array are replaced by records that do nothing, and every other name is refused.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds anything but one float64 matrix.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Initial states must lie in {path}, but there is no such file.")
    try:
        found = _RecordUnpickler(io.BytesIO(_pickle_bytes(path))).load()
        return _to_array(found)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"Initial states must be one pickled float64 matrix, but {path} is not: {error}"
        ) from error


def _pickle_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
        if len(members) != 1:
            raise ValueError(f"expected one data.pkl in the archive, found {len(members)}.")
        if members[0].file_size > _MAX_BYTES:
            raise ValueError(f"its pickle has {members[0].file_size} bytes.")
        return archive.read(members[0])


class _DtypeRecord:
    """Stands for `numpy.dtype`: remembers the type's code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _ArrayRecord:
    """Stands for an array: remembers shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Nothing:
    """Stands for `numpy.ndarray`, which is only named, never called."""

    def __init__(self, *_: Any) -> None:
        raise ValueError("it calls numpy.ndarray.")


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, as protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError(f"it encodes in {encoding!r}.")
    return text.encode("latin1")


_RECORDS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _DtypeRecord,
    ("numpy", "ndarray"): _Nothing,
    ("numpy.core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
}


class _RecordUnpickler(pickle.Unpickler):
    """An unpickler that can build records and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        record = _RECORDS.get((module_name, global_name))
        if record is None:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which is not part of an array."
            )
        return record

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to {pid!r} outside the pickle.")


def _to_array(record: Any) -> Float64[np.ndarray, "e n"]:
    if not isinstance(record, _ArrayRecord) or len(record.state) != 5:
        raise ValueError(f"it holds {type(record).__name__}.")
    _, shape, dtype, fortran_order, data = record.state
    if not isinstance(dtype, _DtypeRecord) or (dtype.code, dtype.order) != ("f8", "<"):
        raise ValueError(f"its numbers are of type {getattr(dtype, 'code', dtype)!r}.")
    if not isinstance(data, bytes) or len(shape) != 2:
        raise ValueError(f"its shape is {shape}.")
    flat = np.frombuffer(data, dtype="<f8").astype(np.float64)
    return flat.reshape(shape, order="F" if fortran_order else "C")
