"""Every change the writer makes to the disk, in one small class that a test can replace."""

import errno
import os
import pathlib
import uuid
from collections.abc import Sequence

from jax_bridge.shards.failures import ShardWriteError


class FileLayer:
    """Writes, syncs, renames and unlinks on the local file system."""

    def create(self, path: pathlib.Path) -> int:
        """Makes a new file for reading and writing and returns its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write_at(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> int:
        """Writes all pieces one after the other and returns the offset behind them."""
        total = sum(map(len, pieces))
        written = os.pwritev(descriptor, pieces, offset)
        if written < total:
            rest = memoryview(b"".join(pieces))
            while written < total:
                written += os.pwrite(descriptor, rest[written:], offset + written)
        return offset + total

    def truncate(self, descriptor: int, size: int) -> None:
        """Cuts a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Waits until a file is on the disk."""
        os.fsync(descriptor)

    def begin_writeback(self, descriptor: int, start: int, count: int) -> None:
        """Asks for a range to be written to the disk soon; promises nothing."""
        # Linux starts to write dirty pages at this advice and drops only pages that are clean
        # already, so what was just written stays in the cache.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)

    def sync_folder(self, path: pathlib.Path) -> None:
        """Waits until a folder's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: pathlib.Path, target: pathlib.Path) -> None:
        """Gives a file another name, replacing what had it."""
        source.rename(target)

    def unlink(self, path: pathlib.Path) -> None:
        """Removes a name, if it is there."""
        path.unlink(missing_ok=True)

    def write_whole(self, path: pathlib.Path, content: bytes) -> None:
        """Puts a small file in place so that a reader sees all of it or nothing."""
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        descriptor = self.create(temporary)
        try:
            self.write_at(descriptor, [content], 0)
            self.sync(descriptor)
        except OSError:
            os.close(descriptor)
            self.unlink(temporary)
            raise
        os.close(descriptor)
        self.rename(temporary, path)
        self.sync_folder(path.parent)


TEMPORARY = ".tmp-"
LOCAL_FILES = FileLayer()

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "Choose a folder that can be written"),
    errno.EACCES: ("writing is not allowed", "Choose a folder that can be written"),
    errno.EPERM: ("writing is not allowed", "Choose a folder that can be written"),
    errno.ENOTDIR: ("a file stands where a folder must be", "Choose another folder"),
    errno.EEXIST: ("a file stands where a folder must be", "Choose another folder"),
    errno.ENOENT: ("the folder has vanished", "Bring it back (a lost mount?) and run again"),
    errno.ESTALE: ("the folder has vanished", "Bring it back (a lost mount?) and run again"),
    errno.EIO: ("the disk reports an error", "Check the disk, then run the same command again"),
}


def write_error(error: OSError, path: pathlib.Path, kept: int | None = None) -> ShardWriteError:
    """One sentence a person can act on, from the operating system's error."""
    if isinstance(error, ShardWriteError):
        return error
    reason, remedy = _REASONS.get(
        error.errno or 0, (str(error.strerror or error), "Run the same command again")
    )
    safe = "" if kept is None else f" ({kept} committed episodes are kept)"
    wrapped = ShardWriteError(f"Cannot write to {path}: {reason}. {remedy}{safe}.")
    wrapped.errno = error.errno
    return wrapped
