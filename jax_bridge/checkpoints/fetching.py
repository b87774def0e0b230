"""One object into one file: goes on after a stop, and never shows what is not whole and right.

The bytes go to `.NAME.part`, of which `.NAME.part.json` says how many are on the disk and of which
version of the object. Only a file that is whole, and has its digest where one is known, gets its
name.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jax_bridge.checkpoints.digests import READ_BYTES, Digest, Hashes
from jax_bridge.shards.file_layer import LOCAL_FILES
from jax_bridge.shards.remote.intervals import coalesce, ranges
from jax_bridge.shards.remote.ranged_get import PIECE
from jax_bridge.shards.remote.store import RemoteStore

WINDOW = 64 * 2**20
"""Bytes that are fetched in parallel before the place is noted."""


class RemoteFile(NamedTuple):
    """One object to be brought here."""

    name: str
    """Under the store's address; empty where the address is the object's."""
    size: int
    stamp: str
    digest: Digest | None = None


class DigestError(OSError):
    """What came is whole, and is not what it should be."""


def fetch(
    store: RemoteStore, file: RemoteFile, target: pathlib.Path, on_bytes: Callable[[int], None]
) -> str:
    """Brings an object here under its name, and returns its sha256.

    Args:
        store: where it lies.
        file: the object.
        target: the file; it is replaced when all is there and right.
        on_bytes: told of what is here, with what an earlier run had brought.

    Raises:
        FileNotFoundError: if the object is gone.
        DigestError: if it has another digest than it should; nothing of it is kept.
        OSError: if it cannot be read, has changed, or the disk refuses; what is here stays, and
            the same call goes on with it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = _beside(target, ".part"), _beside(target, ".part.json")
    with _held(part) as descriptor:
        done = _place(note, part, file)
        _require_room(target.parent, file.size - done)
        hashes = Hashes(file.size, file.digest)
        _add(hashes, descriptor, 0, done)
        on_bytes(done)
        os.ftruncate(descriptor, done)
        for stop in _fetched(store, file, descriptor, done):
            _add(hashes, descriptor, done, stop)
            LOCAL_FILES.sync(descriptor)
            LOCAL_FILES.write_whole(note, _note(file, stop))
            on_bytes(stop - done)
            done = stop
        if not hashes.fits:
            LOCAL_FILES.unlink(part)
            LOCAL_FILES.unlink(note)
            raise _wrong(store, file, hashes)
        LOCAL_FILES.sync(descriptor)
        LOCAL_FILES.rename(part, target)
        LOCAL_FILES.unlink(note)
        LOCAL_FILES.sync_folder(target.parent)
    return hashes.sha256


def _beside(target: pathlib.Path, suffix: str) -> pathlib.Path:
    return target.with_name(f".{target.name}{suffix}")


@contextlib.contextmanager
def _held(part: pathlib.Path) -> Iterator[int]:
    """The unfinished file, for one process at a time."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), part.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:  # held by another process, or given its final name by one just now
            raise OSError(
                f"`out` must be written by one download at a time, but another one writes {part}. "
                "Wait for it, or choose another folder."
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _place(note: pathlib.Path, part: pathlib.Path, file: RemoteFile) -> int:
    """How many bytes of this version of the object are here."""
    try:
        entry = json.loads(note.read_bytes())
        done = int(entry["done"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    same = entry == json.loads(_note(file, done))
    return done if same and 0 <= done <= min(part.stat().st_size, file.size) else 0


def _note(file: RemoteFile, done: int) -> bytes:
    return json.dumps({"stamp": file.stamp, "size": file.size, "done": done}).encode()


def _require_room(folder: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"`out` must have {needed:,} bytes of room, but {folder} has {free:,}. Make room, or "
            "choose another folder."
        )


def _fetched(store: RemoteStore, file: RemoteFile, descriptor: int, start: int) -> Iterator[int]:
    """Fetches one stretch after another and gives the end of each."""
    while start < file.size:
        # A server that always sends the whole object is read once, not once a stretch.
        stop = min(start + WINDOW, file.size) if store.obeys_ranges else file.size
        store.fetch(
            file.name,
            coalesce(ranges([start], [stop]), PIECE),
            lambda place, piece: _write(descriptor, piece, place),
            stamp=file.stamp,
        )
        yield stop
        start = stop


def _write(descriptor: int, piece: bytes, start: int) -> None:
    LOCAL_FILES.write_at(descriptor, [piece], start)


def _add(hashes: Hashes, descriptor: int, start: int, stop: int) -> None:
    for place in range(start, stop, READ_BYTES):
        hashes.add(os.pread(descriptor, min(READ_BYTES, stop - place), place))


def _wrong(store: RemoteStore, file: RemoteFile, hashes: Hashes) -> DigestError:
    assert file.digest is not None
    address = f"{store.address}/{file.name}".rstrip("/")
    return DigestError(
        f"`address` must give the file whose {file.digest.kind} is {file.digest.value} "
        f"({file.digest.source}), but {address} came as {hashes.found}. Nothing of it was kept; "
        "try again, or ask who keeps it."
    )
