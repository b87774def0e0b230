"""Shards as memory: opened once, checked against manifest and index, read by offsets."""

import collections
import mmap
import pathlib

import numpy as np
from jaxtyping import Int64, UInt8

from jax_bridge.shards.failures import DamagedShardError

MAX_OPEN = 256
"""Maps kept open; the longest unused one is closed first."""
CHUNK_BYTES = 2 * 2**20
"""Runs are copied in chunks that stay in the processor's cache."""


class ShardMap:
    """The bytes of one tar."""

    def __init__(self, path: pathlib.Path) -> None:
        self.name = path.stem
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise DamagedShardError("the tar is missing.", shard=self.name) from error
        except ValueError as error:
            raise DamagedShardError("the tar is empty.", shard=self.name, offset=0) from error
        self.bytes: UInt8[np.ndarray, " size"] = np.frombuffer(self._map, np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)

    def records(self, size: int) -> np.ndarray:
        """Overlapping views of `size` bytes that start at every offset; costs no memory."""
        first = self.bytes[:size].view(f"V{size}")
        return np.lib.stride_tricks.as_strided(
            first, shape=(len(self.bytes) - size + 1,), strides=(1,), writeable=False
        )

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
        """
        size = target.dtype.itemsize
        if not size or not len(offsets):
            return
        records = self.records(size)
        step = max(1, CHUNK_BYTES // size)
        for start in range(0, len(offsets), step):
            some = slice(start, start + step)
            target[places[some]] = records[offsets[some]]


class ShardMaps:
    """The maps at hand, by shard."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._maps: collections.OrderedDict[str, ShardMap] = collections.OrderedDict()

    def get(self, name: str) -> ShardMap:
        """The map of a shard, opened where it is not.

        Raises:
            DamagedShardError: if the tar is missing or empty.
        """
        if name in self._maps:
            self._maps.move_to_end(name)
            return self._maps[name]
        # The map itself closes when its last array goes; nobody's array dies early.
        while len(self._maps) >= MAX_OPEN:
            self._maps.popitem(last=False)
        self._maps[name] = ShardMap(self._folder / f"{name}.tar")
        return self._maps[name]

    def __reduce__(self) -> tuple[type["ShardMaps"], tuple[pathlib.Path]]:
        return (ShardMaps, (self._folder,))
