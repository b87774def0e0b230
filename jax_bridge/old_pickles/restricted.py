"""Reading a pickle without running it.

Source: Python's `pickletools` for the opcodes, `pickle._Unpickler` for the stack machine.
"""

import collections
import pathlib
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from jax_bridge.old_pickles import numpy_parts
from jax_bridge.old_pickles.failures import RefusedPickleError
from jax_bridge.old_pickles.numpy_parts import StoredArray, StoredBytes, StoredType
from jax_bridge.old_pickles.spool import BoundedStream, Spool

SPOOLED_BYTES = 4096
"""Bytes from this length on go to the spool, shorter ones stay where they are."""
_NUMPY = {
    "multiarray": {"_reconstruct": numpy_parts.reconstruct, "scalar": numpy_parts.scalar},
    "numeric": {"_frombuffer": numpy_parts.frombuffer},
}
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): numpy_parts.ndarray,
    ("numpy", "dtype"): numpy_parts.dtype,
    ("ml_dtypes", "bfloat16"): numpy_parts.bfloat16,
    ("_codecs", "encode"): numpy_parts.encode,
    ("__builtin__", "bytes"): numpy_parts.no_bytes,
    ("collections", "OrderedDict"): numpy_parts.of_items(collections.OrderedDict),
    **{
        (builtins, kind.__name__): numpy_parts.of_items(kind)
        for builtins in ("builtins", "__builtin__")
        for kind in (set, frozenset)
    },
    **{
        (f"numpy.{core}.{module}", name): call
        for core in ("core", "_core")
        for module, calls in _NUMPY.items()
        for name, call in calls.items()
    },
}
"""The only names that a pickle may use, and what is called in their place."""


class _NotAllowedError(Exception):
    """Carries a sentence out of the stack machine."""


_StackMachine: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue] -- C's has no opcodes to replace


class _Unpickler(_StackMachine):
    """Python's own stack machine with the opcodes that build or call anything replaced."""

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(_StackMachine.dispatch)

    def __init__(self, stream: BoundedStream, spool: Spool) -> None:
        super().__init__(stream, encoding="latin1")
        self._spool, self._size = spool, stream.size

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _NotAllowedError(
                f"it names {module}.{name}, and a pickle may hold numpy arrays, numpy scalars and "
                "plain containers only. Convert it where it was made, or leave the file out."
            )
        return ALLOWED[(module, name)]

    def get_extension(self, code: int) -> NoReturn:
        raise _NotAllowedError(f"it names the registered extension {code}. Leave the file out.")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _NotAllowedError(
            f"it names the outside object {str(pid)[:60]!r}. Leave the file out."
        )

    def _bytes(self, size: int) -> None:
        if size > self._size:
            raise EOFError(f"{size} bytes are announced in a file of {self._size}")
        content = self.read(size) if size < SPOOLED_BYTES else None
        if content is None:
            content = StoredBytes(self._spool.take(self.read, size))
        self.append(content)

    def load_binbytes(self) -> None:
        self._bytes(*struct.unpack("<I", self.read(4)))

    def load_binbytes8(self) -> None:
        self._bytes(*struct.unpack("<Q", self.read(8)))

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, StoredArray | StoredType):
            raise _NotAllowedError(
                f"it sets the state of a {type(made).__name__}. Leave the file out."
            )
        made.build(state)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        call = self.stack[-1]
        if not any(call is allowed for allowed in ALLOWED.values()):
            raise _NotAllowedError(f"it calls a {type(call).__name__}. Leave the file out.")
        self.stack[-1] = call(*arguments)

    def _refuse_object(self) -> None:
        raise _NotAllowedError("it makes an object of a class. Leave the file out.")

    dispatch[pickle.BINBYTES[0]] = load_binbytes
    dispatch[pickle.BINBYTES8[0]] = load_binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = load_binbytes8
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    for _opcode in (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST):
        dispatch[_opcode[0]] = _refuse_object


def read_pickle(
    path: pathlib.Path, *, max_memory: int, spool_folder: pathlib.Path | None = None
) -> Any:
    """Reads numpy arrays, numpy scalars and plain containers out of a pickle.

    Args:
        path: the file.
        max_memory: bytes of arrays that are kept in memory; the others go to a temporary file.
        spool_folder: where that file is made; the system's temporary folder by default.

    Returns:
        What the pickle holds, with a `StoredArray` in the place of each array.

    Raises:
        FileNotFoundError: if there is no such file.
        RefusedPickleError: if it names anything else, or is damaged; nothing of it was run.
        OSError: if it cannot be read, or the temporary file not be written.
    """
    with path.open("rb") as file, Spool(max_memory, spool_folder) as spool:
        stream = BoundedStream(file, path.stat().st_size)
        try:
            return _Unpickler(stream, spool).load()
        except _NotAllowedError as refusal:
            raise RefusedPickleError(path, str(refusal)) from None
        except OSError:
            raise
        except Exception as error:
            what = f"it is damaged or no pickle of arrays ({str(error) or type(error).__name__})."
            raise RefusedPickleError(path, what) from error
