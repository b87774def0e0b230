"""What goes wrong at an address, as one sentence that says what to do."""

import contextlib
import errno
from collections.abc import Iterator
from typing import Literal

from jax_bridge.shards.remote.address import credentials_hint
from jax_bridge.shards.remote.retry import causes, may_pass, status_of

Doing = Literal["read", "listed", "written"]
_NO_CREDENTIALS = frozenset(
    {
        "DefaultCredentialsError",
        "GatedRepoError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RefreshError",
    }
)
"""Exceptions of the libraries under fsspec, by name: none of them need be installed."""


class ChangedObjectError(OSError):
    """An object is not the one that it was when it was opened, or is shorter than it must be."""


@contextlib.contextmanager
def plainly(address: str, doing: Doing) -> Iterator[None]:
    """Turns the errors of any file system into plain ones.

    Raises:
        FileNotFoundError: if the object, or its bucket, is not there.
        PermissionError: if the server refuses, with how to log in.
        FileExistsError: if an object is there that must not be replaced.
        OSError: whatever else; the disk of this machine speaks for itself.
    """
    try:
        yield
    except (ChangedObjectError, FileExistsError):
        raise
    except Exception as error:
        plain = _plain(error, address, doing)
        if plain is None:
            raise
        raise plain from error


def _plain(error: Exception, address: str, doing: Doing) -> OSError | None:
    status = status_of(error)
    names = {type(cause).__name__ for cause in causes(error)}
    if status in (401, 403) or isinstance(error, PermissionError) or names & _NO_CREDENTIALS:
        return PermissionError(
            f"`path` must be an address that may be {doing}, but {address} refuses "
            f"({_reason(error, status)}): it needs credentials or other ones, or is not there. "
            f"{credentials_hint(address)}"
        )
    if status in (404, 410) or isinstance(error, FileNotFoundError):
        return FileNotFoundError(
            f"`path` must be an address that exists, but {address} does not. Check its spelling."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return None
    if (
        status is not None
        or isinstance(error, OSError)
        or may_pass(error)
        or "botocore" in str(type(error).__module__)
    ):
        return OSError(
            f"{address} cannot be {doing}: {_reason(error, status)}. Check the address and the "
            "connection, and try again."
        )
    return None


def _reason(error: Exception, status: int | None) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if status is not None and str(status) not in text:
        text = f"status {status}, {text}"
    return text if len(text) <= 200 else text[:197] + "..."
