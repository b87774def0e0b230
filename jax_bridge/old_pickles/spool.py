"""Bytes of arrays: in memory while there is room, else in a temporary file."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

CHUNK_BYTES = 4 * 2**20
LINE_BYTES = 2**20
"""The longest line of a text opcode."""


class Spool:
    """Takes the bytes of arrays out of a stream.

    Args:
        limit: bytes that may stay in memory; what comes later goes to a file.
        folder: where that file is made; the system's temporary folder by default.
    """

    def __init__(self, limit: int, folder: pathlib.Path | None = None) -> None:
        self._limit, self._folder = limit, folder
        self._file: BinaryIO | None = None
        self.in_memory = 0
        """Bytes kept in memory so far."""
        self.on_disk = 0
        """Bytes written to the file so far."""

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()  # arrays keep what they have mapped

    def take(self, read: Callable[[int], bytes], size: int) -> UInt8[np.ndarray, " size"]:
        """Reads bytes.

        Raises:
            EOFError: if the stream ends before.
            OSError: if the disk refuses.
        """
        if not size or self.in_memory + size <= self._limit:
            self.in_memory += size
            return np.frombuffer(read(size), np.uint8)
        if self._file is None:
            # Without a name: it goes with the last array, also after `kill -9`.
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 -- closed by __exit__
        start = self.on_disk
        for taken in range(0, size, CHUNK_BYTES):
            self._file.write(read(min(CHUNK_BYTES, size - taken)))
        self._file.flush()
        self.on_disk += size
        return np.memmap(self._file, np.uint8, mode="r", offset=start, shape=(size,))


class BoundedStream:
    """A file that nobody can ask for more memory than it has bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self._left = file, size, size

    def read(self, size: int) -> bytes:
        """Reads exactly `size` bytes.

        Raises:
            EOFError: if there are fewer.
        """
        if not 0 <= size <= self._left:
            raise EOFError(f"{size} bytes are announced where {self._left} are left")
        content = self._file.read(size)
        self._left -= len(content)
        if len(content) != size:
            raise EOFError("it is shorter than when it was opened")
        return content

    def readline(self) -> bytes:
        """Reads a line of a text opcode.

        Raises:
            EOFError: if it does not end.
        """
        line = self._file.readline(LINE_BYTES)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise EOFError("a line does not end")
        return line
