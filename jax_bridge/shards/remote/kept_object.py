"""The bytes of one remote object, as far as they are on this machine."""

import contextlib
import fcntl
import mmap
import os
import pathlib
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from jax_bridge.shards.remote.intervals import Ranges, coalesce, missing, nothing, union
from jax_bridge.shards.remote.ranged_get import PIECE, Sink

Fetch: TypeAlias = Callable[[Ranges, Sink], None]
"""Reads ranges of the object and passes each on; returns when all are there and good."""
_CLAIM = np.dtype([("start", "<u8"), ("stop", "<u8"), ("digest", "<u4"), ("self", "<u4")])
"""A line of the list of what a file holds: a range, the CRC-32 of its bytes, and of the line."""


class CacheDiskError(Exception):
    """The disk of the cache is full, or may not be written."""


class KeptObject:
    """An object's bytes in memory that costs nothing until it is filled."""

    def __init__(self, size: int) -> None:
        self.held = 0
        """Bytes that were fetched for it by this process."""
        self._condition = threading.Condition()
        self._here = nothing()
        self._coming: list[Ranges] = []
        self.bytes = self._open(size)
        """All of the object; only what was filled means anything."""

    def has(self, need: Ranges) -> bool:
        """Whether these ranges are there."""
        with self._condition:
            return not len(self._lacking(need))

    def fill(self, need: Ranges, fetch: Fetch) -> None:
        """Returns when these ranges are there; may be called from several threads.

        What another thread is fetching is waited for, not fetched again.
        """
        while True:
            with self._condition:
                lacking = self._lacking(need)
                if not len(lacking):
                    return
                mine = missing(lacking, union(np.concatenate([nothing(), *self._coming])))
                if not len(mine):
                    self._condition.wait()
                    continue
                mine = coalesce(mine, PIECE)
                self._coming.append(mine)
            try:
                fetch(mine, self._write)
                self._finish(mine)
            finally:
                with self._condition:
                    self._coming = [other for other in self._coming if other is not mine]
                    self._condition.notify_all()

    @property
    def gone(self) -> bool:
        """Whether it was evicted: what is filled from now on helps nobody else."""
        return False

    def _open(self, size: int) -> UInt8[np.ndarray, " size"]:
        return np.zeros(size, np.uint8)  # Linux gives its memory when it is written.

    def _lacking(self, need: Ranges) -> Ranges:
        return missing(need, self._here)

    def _write(self, start: int, content: bytes) -> None:
        self.bytes[start : start + len(content)] = np.frombuffer(content, np.uint8)

    def _finish(self, fetched: Ranges) -> None:
        with self._condition:
            self._here = union(np.concatenate([self._here, fetched]))
            self.held += int((fetched[:, 1] - fetched[:, 0]).sum())


class KeptFile(KeptObject):
    """An object's bytes in a sparse file that several processes fill and that outlives them.

    Beside it lies a list of what it holds. A range is written first and listed then; whoever
    takes it over compares its digest first. So whatever a crash leaves, no wrong byte is read.

    Raises:
        CacheDiskError: if the disk refuses; of `fill`, too.
    """

    def __init__(self, path: pathlib.Path, size: int) -> None:
        self.path = path
        self._claims = np.zeros(0, _CLAIM)
        self._read_to = 0
        self._file = self._list = -1
        with _disk():
            super().__init__(size)

    def __del__(self) -> None:
        for descriptor in (self._file, self._list):
            if descriptor >= 0:
                os.close(descriptor)

    @property
    def gone(self) -> bool:
        """Whether its files were removed."""
        return min(os.fstat(d).st_nlink for d in (self._file, self._list)) == 0

    def _open(self, size: int) -> UInt8[np.ndarray, " size"]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self.path, how, 0o644)
        self._list = os.open(list_path(self.path), how, 0o644)
        os.utime(self._file)
        if os.fstat(self._file).st_size != size:
            os.truncate(self._list, 0)
            os.truncate(self._file, size)
        return np.frombuffer(mmap.mmap(self._file, size, access=mmap.ACCESS_READ), np.uint8)

    def _lacking(self, need: Ranges) -> Ranges:
        lacking = missing(need, self._here)
        if len(lacking):
            self._read_list()
            if self._take_over(lacking):
                lacking = missing(need, self._here)
        return lacking

    def _read_list(self) -> None:
        size = os.fstat(self._list).st_size
        size -= size % _CLAIM.itemsize
        if size > self._read_to:
            content = os.pread(self._list, size - self._read_to, self._read_to)
            self._read_to += len(content)
            new = np.frombuffer(content, _CLAIM)
            inside = (new["start"] < new["stop"]) & (new["stop"] <= len(self.bytes))
            self._claims = np.concatenate([self._claims, new[inside]])

    def _take_over(self, lacking: Ranges) -> bool:
        """Compares digests of listed ranges that are asked for; whether any was."""
        starts = self._claims["start"].astype(np.int64)
        stops = self._claims["stop"].astype(np.int64)
        place = np.minimum(np.searchsorted(lacking[:, 1], starts, side="right"), len(lacking) - 1)
        wanted = (lacking[place, 0] < stops) & (lacking[place, 1] > starts)
        if not wanted.any():
            return False
        good = [claim for claim in self._claims[wanted] if self._is_good(claim)]
        self._claims = self._claims[~wanted]
        taken = np.array([(int(c["start"]), int(c["stop"])) for c in good], np.int64)
        self._here = union(np.concatenate([self._here, taken.reshape(-1, 2)]))
        return True

    def _is_good(self, claim: np.void) -> bool:
        if zlib.crc32(claim.tobytes()[:-4]) != int(claim["self"]):
            return False
        content = self.bytes[int(claim["start"]) : int(claim["stop"])]
        return zlib.crc32(content.data) == int(claim["digest"])

    def _write(self, start: int, content: bytes) -> None:
        view = memoryview(content)
        with _disk():
            while view:
                count = os.pwrite(self._file, view, start)
                view, start = view[count:], start + count

    def _finish(self, fetched: Ranges) -> None:
        claims = np.zeros(len(fetched), _CLAIM)
        claims["start"], claims["stop"] = fetched.T
        claims["digest"] = [zlib.crc32(self.bytes[start:stop].data) for start, stop in fetched]
        claims["self"] = [zlib.crc32(claim.tobytes()[:-4]) for claim in claims]
        with _disk(), _locked(self._list):
            size = os.fstat(self._list).st_size
            os.pwrite(self._list, claims.tobytes(), size - size % _CLAIM.itemsize)
        super()._finish(fetched)


def list_path(path: pathlib.Path) -> pathlib.Path:
    """The list of what a file holds."""
    return path.with_suffix(".list")


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Tells the errors of the cache's disk from those of what is read."""
    try:
        yield
    except OSError as error:
        raise CacheDiskError(error.strerror or str(error)) from error
