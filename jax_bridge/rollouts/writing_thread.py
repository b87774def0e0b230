"""Writes samples while the policy and the simulator go on."""

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

PENDING = 4
"""Samples that may wait to be written; a full-token one can be tens of megabytes."""


class WritingThread:
    """Does one thing after the other; an error comes up at the next call."""

    def __init__(self, pending: int = PENDING) -> None:
        self._limit = pending
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="write-samples")
        self._pending: collections.deque[concurrent.futures.Future[Any]] = collections.deque()

    def submit(self, function: Callable[..., Any], **arguments: Any) -> None:
        """Lets the thread call a function; waits where too much is waiting already.

        Raises:
            OSError: if the disk refused something earlier.
            ValueError: if something earlier did not fit.
        """
        while len(self._pending) >= self._limit:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, **arguments))

    def drain(self) -> None:
        """Waits until everything is done.

        Raises:
            OSError: if the disk refused.
            ValueError: if something did not fit.
        """
        while self._pending:
            self._pending.popleft().result()

    def forget(self) -> None:
        """Waits until nothing runs any more; what was not begun is left out, and all errors."""
        while self._pending:
            future = self._pending.popleft()
            if not future.cancel():
                with contextlib.suppress(Exception):
                    future.result()

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown(cancel_futures=True)
