"""Fetching bytes of remote shards before they are needed, in parallel and within bounds."""

import collections
import concurrent.futures
import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.last_asked import Asked, LastAsked
from jax_bridge.shards.places import NOWHERE, Places
from jax_bridge.shards.projection import Projection
from jax_bridge.shards.remote.intervals import ranges
from jax_bridge.shards.remote.remote_shard import FILL_BYTES, RemoteShard
from jax_bridge.shards.shard_map import ShardMaps

_log = logging.getLogger(__name__)
PARALLEL = 16
"""Shards that are fetched from at one time."""
AHEAD_BYTES = 64 * 2**20
"""Bytes that are on their way, at most."""
Positions = Int64[np.ndarray, " _"]


class ReadAhead:
    """Fetches for one data set; can be used from several threads."""

    def __init__(self, maps: ShardMaps, places: Places) -> None:
        self._maps, self._places = maps, places
        self._asked = LastAsked()
        self._lock = threading.Lock()
        self._on_their_way = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (ReadAhead, (self._maps, self._places))

    def in_time(
        self,
        suffix: str,
        name: str,
        rows: Int64[np.ndarray, " n"],
        groups: Sequence[Positions],
        projection: Projection,
    ) -> Iterator[Positions]:
        """Gives places of rows by shard, each when its bytes are there; the next are on their way.

        Raises:
            OSError: if a server cannot be read.
        """
        asked = Asked(suffix, name, projection)
        self._asked.note(asked)
        step = max(1, FILL_BYTES // max(1, asked.bytes))
        parts = [g[i : i + step] for g in groups for i in range(0, len(g), step)]
        if parts and not self._places.knows_headers(asked.suffix):
            self._learn(asked, rows[parts[0]])
        waiting: collections.deque[tuple[Positions, concurrent.futures.Future[None]]] = (
            collections.deque()
        )
        count = 0
        for part in parts:
            waiting.append((part, self._pool.submit(self._fetch, asked, rows[part])))
            count += len(part)
            while waiting and count * asked.bytes > AHEAD_BYTES:
                done, future = waiting.popleft()
                count -= len(done)
                future.result()
                yield done
        for done, future in waiting:
            future.result()
            yield done

    def later(self, rows: Int64[np.ndarray, " n"]) -> None:
        """Fetches, in the background, what was last read of other rows; a hint, no promise."""
        for asked in self._asked.all():
            size = asked.bytes * len(rows)
            with self._lock:
                if self._on_their_way + size > AHEAD_BYTES:
                    continue
                self._on_their_way += size
            self._pool_of_hints.submit(self._hint, asked, rows, size)

    def _hint(self, asked: Asked, rows: Int64[np.ndarray, " n"], size: int) -> None:
        try:
            ids = self._places.shard_ids[rows]
            order = np.argsort(ids, kind="stable")
            bounds = np.flatnonzero(np.diff(ids[order])) + 1
            groups = np.split(rows[order], bounds) if len(rows) else []
            concurrent.futures.wait([self._pool.submit(self._fetch, asked, g) for g in groups])
        except (OSError, ValueError) as error:
            _log.debug("Nothing was fetched ahead: %s", error)  # whoever reads will meet it
        finally:
            with self._lock:
                self._on_their_way -= size

    def _fetch(self, asked: Asked, rows: Int64[np.ndarray, " n"]) -> None:
        """Fetches what is needed of rows of one shard; what is damaged is left to the reader."""
        shard = self._shard(rows)
        if shard is None:
            return
        starts = self._places.likely_starts(asked.suffix, asked.name, rows)
        there = starts != NOWHERE
        offsets = (starts[there, None] + asked.projection.offsets).reshape(-1)
        need = ranges(offsets, offsets + asked.projection.run_bytes)
        heads = self._places.unread_headers(shard, asked.suffix, rows[there])
        need = np.concatenate([heads, need])
        inside = (need[:, 0] >= 0) & (need[:, 1] <= len(shard))
        try:
            shard.ensure(need[inside])
        except DamagedShardError as error:
            _log.debug("Left to the reader: %s", error)

    def _learn(self, asked: Asked, rows: Int64[np.ndarray, " n"]) -> None:
        """Reads one header, so that it is known how long the others are."""
        shard = self._shard(rows)
        try:
            if shard is not None:
                self._places.tensor_starts(shard, asked.suffix, asked.name, rows[:1])
        except DamagedShardError as error:
            _log.debug("Left to the reader: %s", error)

    def _shard(self, rows: Int64[np.ndarray, " n"]) -> RemoteShard | None:
        name = self._places.shard_names[self._places.shard_ids[rows[0]]]
        try:
            shard = self._maps.get(name)
        except DamagedShardError as error:
            _log.debug("Left to the reader: %s", error)
            return None
        assert isinstance(shard, RemoteShard)
        return shard

    @functools.cached_property
    def _pool(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(PARALLEL, "remote-shard")

    @functools.cached_property
    def _pool_of_hints(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(2, "remote-ahead")
