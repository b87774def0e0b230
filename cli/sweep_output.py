"""What threads print, each into its own file."""

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import IO


class OutputOfThreads(io.TextIOBase):
    """Stands in for `sys.stdout`.

    Args:
        rest: where a thread prints that has no file.
    """

    def __init__(self, rest: IO[str]) -> None:
        self._rest = rest
        self._own = threading.local()

    @contextlib.contextmanager
    def to(self, file: IO[str]) -> Iterator[None]:
        """Sends what this thread prints to a file."""
        self._own.file = file
        try:
            yield
        finally:
            del self._own.file

    def _file(self) -> IO[str]:
        return getattr(self._own, "file", self._rest)

    def write(self, text: str) -> int:
        """Writes to the thread's file."""
        return self._file().write(text)

    def flush(self) -> None:
        """Flushes the thread's file."""
        self._file().flush()
