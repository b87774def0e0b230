"""Letting the disk read the next rows while those at hand are copied."""

import concurrent.futures
import functools
import logging
import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.last_asked import Asked, LastAsked
from jax_bridge.shards.places import NOWHERE, Places
from jax_bridge.shards.projection import Projection
from jax_bridge.shards.shard_map import ShardMap, ShardMaps

_log = logging.getLogger(__name__)
AHEAD_BYTES = 256 * 2**20
"""Asked for and not yet answered, at most, so that it is still in memory when it is read."""
Positions = Int64[np.ndarray, " _"]


class LocalReadAhead:
    """Asks for one data set in a folder; can be used from several threads."""

    def __init__(self, maps: ShardMaps, places: Places) -> None:
        self._maps, self._places = maps, places
        self._asked = LastAsked()
        self._before: Positions = np.empty(0, np.int64)
        """The rows that `later` was called with last."""
        self._free = threading.Semaphore(1)

    def __reduce__(self) -> tuple[type, tuple[ShardMaps, Places]]:
        return (LocalReadAhead, (self._maps, self._places))

    def in_time(
        self,
        suffix: str,
        name: str,
        rows: Positions,
        groups: Sequence[Positions],
        projection: Projection,
    ) -> Sequence[Positions]:
        """Gives the places of rows as they are, and remembers what is read of them."""
        self._asked.note(Asked(suffix, name, projection))
        return groups

    def later(self, rows: Positions) -> None:
        """Lets the disk read, in the background, what was last read of other rows; a hint."""
        new = rows[~np.isin(rows, self._before)]
        asked = [a for a in self._asked.all() if a.bytes * len(new) <= AHEAD_BYTES]
        if not asked or not len(new):
            return
        if self._there(asked[0], new[-1]):
            self._before = rows
        elif self._free.acquire(blocking=False):  # else the disk has enough to do
            self._before = rows
            self._pool.submit(self._hint, asked, new)

    def _there(self, asked: Asked, row: np.int64) -> bool:
        shard, offsets = self._runs(asked, np.asarray([row]))
        return shard is None or shard.has(offsets, asked.projection.run_bytes)

    def _hint(self, asked: Sequence[Asked], rows: Positions) -> None:
        try:
            ids = self._places.shard_ids[rows]
            for shard_id in np.unique(ids):
                for one in asked:
                    shard, offsets = self._runs(one, rows[ids == shard_id])
                    if shard is not None:
                        shard.ask_for(offsets, one.projection.run_bytes)
        except (OSError, ValueError) as error:
            _log.debug("Nothing was read ahead: %s", error)  # whoever reads will meet it
        finally:
            self._free.release()

    def _runs(self, asked: Asked, rows: Positions) -> tuple[ShardMap | None, Positions]:
        """A shard and where in it the runs of its rows begin; what is damaged is left out."""
        starts = self._places.likely_starts(asked.suffix, asked.name, rows)
        offsets = (starts[starts != NOWHERE, None] + asked.projection.offsets).reshape(-1)
        try:
            shard = self._maps.get(self._places.shard_names[self._places.shard_ids[rows[0]]])
        except DamagedShardError as error:
            _log.debug("Left to the reader: %s", error)
            return None, offsets
        assert isinstance(shard, ShardMap)
        return shard, offsets[(offsets >= 0) & (offsets < len(shard))]

    @functools.cached_property
    def _pool(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(1, "shard-ahead")
