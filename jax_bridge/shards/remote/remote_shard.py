"""A tar at an address, read like one on this machine: what is missing is fetched first."""

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.remote.block_cache import BlockCache, Place
from jax_bridge.shards.remote.intervals import Ranges, ranges
from jax_bridge.shards.remote.kept_object import KeptObject
from jax_bridge.shards.remote.ranged_get import Sink
from jax_bridge.shards.remote.refusals import ChangedObjectError
from jax_bridge.shards.remote.store import ObjectInfo, RemoteStore
from jax_bridge.shards.shard_map import copy_runs

FILL_BYTES = 64 * 2**20
"""What is fetched before it is copied, at most; bounds what a read holds."""


class RemoteShard:
    """The bytes of one tar, as they were when the data set was opened.

    Raises:
        DamagedShardError: if the tar is missing, empty, or another one by now; also of `gather`.
    """

    trusts_index = True
    """Whether one header a size of member is enough: every look moves bytes."""

    def __init__(
        self, name: str, store: RemoteStore, cache: BlockCache, about: ObjectInfo | None
    ) -> None:
        self.name = name
        self._object = f"shards/{name}.tar"
        self._store, self._cache = store, cache
        try:
            self._about = about or store.about(self._object)
        except FileNotFoundError as error:
            raise DamagedShardError("the tar is missing.", shard=name) from error
        if not self._about.size:
            raise DamagedShardError("the tar is empty.", shard=name, offset=0)
        self._place = Place(name, self._about.stamp, self._about.size)
        self._kept: KeptObject | None = None

    def __len__(self) -> int:
        return self._about.size

    def ensure(self, need: Ranges) -> KeptObject:
        """Fetches what is missing of some ranges, which must lie inside the tar.

        Raises:
            DamagedShardError: if the tar changed since it was opened.
            OSError: if it cannot be read.
        """
        if not self._store.obeys_ranges:
            need = ranges([0], [len(self)])
        kept = self._cache.filled(self._kept, self._place, need, self._fetch)
        self._kept = kept
        return kept

    def gather(
        self,
        offsets: Int64[np.ndarray, " n"],
        target: np.ndarray,
        places: Int64[np.ndarray, " n"],
    ) -> None:
        """Copies runs of bytes, as `ShardMap.gather`."""
        size = target.dtype.itemsize
        if not size or not len(offsets):
            return
        step = max(1, FILL_BYTES // size)
        for start in range(0, len(offsets), step):
            some = slice(start, start + step)
            kept = self.ensure(ranges(offsets[some], offsets[some] + size))
            copy_runs(kept.bytes, offsets[some], target, places[some])

    def _fetch(self, pieces: Ranges, sink: Sink) -> None:
        try:
            self._store.fetch(self._object, pieces, sink, stamp=self._about.stamp)
        except (ChangedObjectError, FileNotFoundError) as error:
            raise DamagedShardError(
                "the tar changed or vanished since the data set was opened. Open it again.",
                shard=self.name,
            ) from error
