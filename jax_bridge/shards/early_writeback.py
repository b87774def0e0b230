"""Sets the disk to work while the writer goes on, so that the fsync at commit is short."""

import concurrent.futures
import contextlib

from jax_bridge.shards.file_layer import FileLayer

BYTES = 16 * 2**20
"""So much is sent to the disk at a time."""


class EarlyWriteback:
    """Hints in a thread: a hint may wait until the disk takes more."""

    def __init__(self, files: FileLayer, descriptor: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self._sent = 0
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def advance(self, size: int) -> None:
        """Hands on what was written so far, once it is enough.

        Args:
            size: of the file now.
        """
        self._sent = min(self._sent, size)
        if size - self._sent < BYTES:
            return
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="shard-send")
        self._pool.submit(self._send, self._sent, size - self._sent)
        self._sent = size

    def close(self) -> None:
        """Ends the thread; the file may then be closed."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _send(self, start: int, count: int) -> None:
        with contextlib.suppress(OSError):
            self._files.begin_writeback(self._descriptor, start, count)
