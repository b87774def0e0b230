"""A whole object as a local file, and whether it equals one."""

import os
import pathlib
import threading

from jax_bridge.shards.remote.store import RemoteStore


def download(store: RemoteStore, name: str, target: pathlib.Path) -> int:
    """Copies an object into a new file, in pieces and in parallel; returns its size.

    Raises:
        FileNotFoundError: if there is no such object; the file is then not there either.
        OSError: if it cannot be read, or the disk refuses.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        return store.download(name, lambda start, piece: _write(descriptor, piece, start))
    except BaseException:
        target.unlink()
        raise
    finally:
        os.close(descriptor)


def is_equal(store: RemoteStore, name: str, local: pathlib.Path) -> bool:
    """Whether an object has the bytes of a file; reads all of it if their sizes are equal.

    Raises:
        FileNotFoundError: if there is no such object.
        OSError: if it cannot be read.
    """
    if store.size(name) != local.stat().st_size:
        return False
    differs = threading.Event()
    descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC)

    def compare(start: int, piece: bytes) -> None:
        if os.pread(descriptor, len(piece), start) != piece:
            differs.set()

    try:
        store.download(name, compare)
    finally:
        os.close(descriptor)
    return not differs.is_set()


def _write(descriptor: int, piece: bytes, start: int) -> None:
    rest = memoryview(piece)
    while rest:
        written = os.pwrite(descriptor, rest, start)
        rest, start = rest[written:], start + written
