"""Trying again, where that can help: lost connections, timeouts, busy servers, short bodies.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog (2015), "equal jitter".
"""

import dataclasses
import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of which another try may get rid."""
_TRANSPORT = frozenset(
    {
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "botocore.ConnectionError",
        "botocore.HTTPClientError",
        "botocore.IncompleteReadError",
        "botocore.ResponseStreamingError",
        "http.IncompleteRead",
        "httpx.TransportError",
        "requests.ChunkedEncodingError",
        "requests.ConnectionError",
        "requests.Timeout",
        "urllib3.HTTPError",
    }
)
"""Exceptions of the libraries under fsspec that say a connection failed; by name, because none of
them need be installed."""
_PASSING = frozenset(
    {
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
    }
)


class ShortBodyError(OSError):
    """A server sent fewer or other bytes than it announced."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
    """How often to try, and how long to wait in between."""

    attempts: int = 6
    """The first one counted."""
    first_wait: float = 0.2
    """Seconds, at most, before the second attempt; doubles with each."""
    longest_wait: float = 10.0
    """Seconds."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or self.longest_wait < 0:
            raise ValueError(
                "`attempts` must be positive and waits not negative, but got "
                f"{self.attempts}, {self.first_wait} and {self.longest_wait}."
            )

    def call(self, function: Callable[..., T], *arguments: Any, what: str) -> T:
        """Calls a function until it succeeds, fails for good, or attempts run out.

        Args:
            function: what may be called again without harm.
            arguments: given to it.
            what: for the log, such as "Reading s3://bucket/data/dataset.json".
        """
        for attempt in range(1, self.attempts):
            try:
                return function(*arguments)
            except Exception as error:
                if not may_pass(error):
                    raise
                wait = random.uniform(0.5, 1) * self._limit(attempt)
                _log.warning(
                    "%s failed (%s); attempt %d of %d follows in %.1f s.",
                    *(what, _short(error), attempt + 1, self.attempts, wait),
                )
                time.sleep(wait)
        return function(*arguments)

    def _limit(self, attempt: int) -> float:
        return min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    status = status_of(error)
    if status is not None and status >= 400:
        return status in _BUSY
    for cause in causes(error):
        if isinstance(cause, FileNotFoundError | FileExistsError | PermissionError):
            return False
        if isinstance(cause, ShortBodyError | TimeoutError | ConnectionError | EOFError):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return True
        if any(
            f"{k.__module__.split('.')[0]}.{k.__name__}" in _TRANSPORT for k in type(cause).mro()
        ):
            return True
    return False


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of some library tells."""
    for cause in causes(error):
        reply: Any = getattr(cause, "response", None)
        if isinstance(reply, dict):
            found = reply.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(reply, "status_code", None)
        # aiohttp's `code` is what it thinks of a broken body, not what a server has answered.
        own = "status" if type(cause).__module__.startswith("aiohttp") else "code"
        for status in (found, getattr(cause, own, None)):
            if isinstance(status, int | str) and str(status).isdecimal() and int(status) >= 100:
                return int(status)
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
