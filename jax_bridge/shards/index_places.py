"""Where members and tensors lie by the index, and how a damaged place is named."""

import functools

import numpy as np
from jaxtyping import Int32, Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_rows import member_column
from jax_bridge.shards.index_table import NO_VALUE, IndexTable
from jax_bridge.shards.shard_map import Shard

NOWHERE = NO_VALUE


class IndexPlaces:
    """Offsets and sizes by row."""

    def __init__(self, index: IndexTable) -> None:
        self._index = index

    def __len__(self) -> int:
        return self._index.num_rows

    @functools.cached_property
    def _shards(self) -> tuple[list[str], Int32[np.ndarray, " rows"]]:
        return self._index.codes("shard")

    @property
    def shard_names(self) -> list[str]:
        """The shards that have rows."""
        return self._shards[0]

    @property
    def shard_ids(self) -> Int32[np.ndarray, " rows"]:
        """Each row's place in `shard_names`."""
        return self._shards[1]

    @functools.cached_property
    def rows_of(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """The rows of each shard; found for all at once, for there may be very many."""
        order = np.argsort(self.shard_ids, kind="stable")
        bounds = np.flatnonzero(np.diff(self.shard_ids[order])) + 1
        parts = np.split(order, bounds) if len(order) else []
        return {self.shard_names[self.shard_ids[part[0]]]: part for part in parts}

    @functools.cached_property
    def suffixes(self) -> list[str]:
        """The kinds of members that there are."""
        head, tail = member_column("\0", "offset").split("\0")
        names = self._index.column_names
        return [
            name.removeprefix(head).removesuffix(tail)
            for name in names
            if name.startswith(head) and name.endswith(tail)
        ]

    def key(self, row: int) -> str:
        """The key of a row."""
        return self._index.take([row]).column("key")[0].as_py()

    def column(self, name: str, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Offsets or sizes of some rows; `NOWHERE` where a sample has no such thing."""
        if name not in self._index.column_names:
            return np.full(len(rows), NOWHERE)
        return self._index.integers(name, rows)

    def require(
        self,
        good: np.ndarray,
        shard: Shard,
        suffix: str,
        rows: Int64[np.ndarray, " n"],
        reason: str,
    ) -> None:
        """Refuses the first row that is not good.

        Raises:
            DamagedShardError: naming its place.
        """
        if not good.all():
            raise self.damaged(shard, suffix, int(rows[int(np.argmin(good))]), reason)

    def damaged(self, shard: Shard, suffix: str, row: int, reason: str) -> DamagedShardError:
        """What is wrong with a member, with its place."""
        offset = int(self.column(member_column(suffix, "offset"), np.asarray([row]))[0])
        return DamagedShardError(
            reason,
            shard=shard.name,
            key=self.key(row),
            member=suffix,
            offset=None if offset == NOWHERE else offset,
        )
