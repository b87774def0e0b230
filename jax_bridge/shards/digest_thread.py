"""Digests members in threads while the writer goes on (hashlib lets go of the interpreter)."""

import collections
import concurrent.futures
import hashlib

PENDING_BYTES = 4 * 2**20
"""Small, so that the same memory is used again while it is still in the processor's cache."""
INLINE_BYTES = 64 * 2**10
"""What is smaller is hashed at once: handing it over would take longer."""


class DigestThread:
    """Hashes what it is given; holds at most `PENDING_BYTES` that are not hashed yet."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="shard-digest")
        self._pending: collections.deque[tuple[concurrent.futures.Future[str], int]]
        self._pending = collections.deque()
        self._bytes = 0

    def submit(self, content: bytes) -> "concurrent.futures.Future[str]":
        """Starts to hash; waits where too much is waiting already."""
        if len(content) < INLINE_BYTES:
            done: concurrent.futures.Future[str] = concurrent.futures.Future()
            done.set_result(_sha256(content))
            return done
        while self._pending and self._bytes + len(content) > PENDING_BYTES:
            future, size = self._pending.popleft()
            future.result()
            self._bytes -= size
        future = self._pool.submit(_sha256, content)
        self._pending.append((future, len(content)))
        self._bytes += len(content)
        return future

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
