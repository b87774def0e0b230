"""What can be wrong with an episode file."""

import errno
import os


class EpisodeReadError(OSError):
    """A part of an episode cannot be read; names the file and the place in it."""


def why_unreadable(error: Exception, path: str) -> str:
    """One clause that says why a file or a part of it cannot be read."""
    text = " ".join(str(error).split())
    if isinstance(error, BlockingIOError) or "unable to lock file" in text:
        return "it is locked: another program is writing it"
    if "truncated file" in text:
        return "it is truncated"
    if "file signature not found" in text:
        empty = os.path.exists(path) and os.path.getsize(path) == 0
        return "it is empty" if empty else "it is no HDF5 file"
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EACCES:
        return "reading it is not allowed"
    return text[:200] or type(error).__name__
