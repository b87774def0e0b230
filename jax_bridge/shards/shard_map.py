"""Shards as memory: opened once, checked against manifest and index, read by offsets."""

import collections
import mmap
import os
import pathlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from jax_bridge.shards.failures import DamagedShardError

CHUNK_BYTES = 2 * 2**20
"""Runs are copied in chunks that stay in the processor's cache."""
NOWAIT: int = getattr(os, "RWF_NOWAIT", -1)
"""Reads what is in memory or refuses; only Linux knows it, others refuse -1."""


@runtime_checkable
class Shard(Protocol):
    """The bytes of one tar, wherever they lie."""

    name: str
    trusts_index: bool
    """Whether one header a size of member is enough: every look moves bytes."""

    def __len__(self) -> int: ...

    def gather(
        self,
        offsets: Int64[np.ndarray, " n"],
        target: np.ndarray,
        places: Int64[np.ndarray, " n"],
    ) -> None:
        """Copies runs of bytes.

        Args:
            offsets: where the runs start; they must lie inside the tar.
            target: void vector; its item size is the length of a run.
            places: where in the target each run goes.

        Raises:
            DamagedShardError: if the tar is not what it was when it was opened.
        """
        ...


class ShardMap:
    """The bytes of one tar on this machine."""

    trusts_index = False

    def __init__(self, path: pathlib.Path) -> None:
        self.name = path.stem
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise DamagedShardError("the tar is missing.", shard=self.name) from error
        except ValueError as error:
            raise DamagedShardError("the tar is empty.", shard=self.name, offset=0) from error
        self.bytes: UInt8[np.ndarray, " size"] = np.frombuffer(self._map, np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)

    def gather(
        self,
        offsets: Int64[np.ndarray, " n"],
        target: np.ndarray,
        places: Int64[np.ndarray, " n"],
    ) -> None:
        """Copies runs of bytes; see `Shard.gather`."""
        self._fetch(offsets, target.dtype.itemsize)
        copy_runs(self.bytes, offsets, target, places)

    def has(self, offsets: Int64[np.ndarray, " n"], size: int) -> bool:
        """Whether the end of the last run is in memory; true where there is none."""
        return not size or not len(offsets) or self._is_in_memory(int(offsets[-1]) + size - 1)

    def ask_for(self, offsets: Int64[np.ndarray, " n"], size: int) -> None:
        """Lets the disk begin to read runs; other Python threads go on meanwhile.

        It is a hint, which some systems have no word for.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        for offset in offsets.tolist():
            os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def _fetch(self, offsets: Int64[np.ndarray, " n"], size: int) -> None:
        """Asks the disk for all runs at once where some are not in memory.

        Copying would wait for one page fault after the other, each of which reads too much.
        """
        if not size or not len(offsets):
            return
        samples = (offsets[0], offsets[len(offsets) // 2], offsets[-1] + size - 1)
        if all(self._is_in_memory(int(offset)) for offset in samples):
            return
        for offset in np.sort(offsets).tolist():
            start = offset - offset % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, offset + size - start)

    def _is_in_memory(self, offset: int) -> bool:
        try:
            return os.preadv(self._descriptor, [bytearray(1)], offset, NOWAIT) == 1
        except OSError:  # not in memory, or a system that does not say
            return False


def copy_runs(
    content: UInt8[np.ndarray, " size"],
    offsets: Int64[np.ndarray, " n"],
    target: np.ndarray,
    places: Int64[np.ndarray, " n"],
) -> None:
    """Copies runs of the length of the target's items to their places."""
    size = target.dtype.itemsize
    if not size or not len(offsets):
        return
    # Overlapping views that start at every offset; they cost no memory.
    records = np.lib.stride_tricks.as_strided(
        content[:size].view(f"V{size}"),
        shape=(len(content) - size + 1,),
        strides=(1,),
        writeable=False,
    )
    step = max(1, CHUNK_BYTES // size)
    for start in range(0, len(offsets), step):
        some = slice(start, start + step)
        target[places[some]] = records[offsets[some]]


class ShardMaps:
    """The shards at hand, by name; can be used from several threads.

    Args:
        open_shard: opens one.
        limit: how many are kept open; the longest unused one is closed first.
    """

    def __init__(self, open_shard: Callable[[str], Shard], limit: int) -> None:
        self._open, self._limit = open_shard, limit
        self._maps: collections.OrderedDict[str, Shard] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Shard:
        """A shard, opened where it is not.

        Raises:
            DamagedShardError: if the tar is missing or empty.
        """
        with self._lock:
            if name in self._maps:
                self._maps.move_to_end(name)
                return self._maps[name]
        opened = self._open(name)  # may wait for a server
        with self._lock:
            shard = self._maps.setdefault(name, opened)
            # The map itself closes when its last array goes; nobody's array dies early.
            while len(self._maps) > self._limit:
                self._maps.popitem(last=False)
            return shard

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardMaps, (self._open, self._limit))
