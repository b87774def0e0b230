"""Where tensors lie, out of the index, and whether the shards agree."""

import functools

import numpy as np
from jaxtyping import Int32, Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_rows import member_column, tensor_column
from jax_bridge.shards.index_table import NO_VALUE, IndexTable
from jax_bridge.shards.manifest import Manifest
from jax_bridge.shards.safetensors_header import TensorEntry, parse_header
from jax_bridge.shards.shard_map import ShardMap

NOWHERE = NO_VALUE
_UNREAD = -1
_HEADER_ROWS = 1024


class Places:
    """Offsets of members and tensors by row, and the headers that were read so far."""

    def __init__(self, index: IndexTable) -> None:
        self._index = index
        self._header_ids: dict[str, Int32[np.ndarray, " rows"]] = {}
        self._headers: list[dict[str, TensorEntry]] = []
        self._known: dict[tuple[bytes, int], int] = {}

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
    def _rows_of(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """The rows of each shard; found for all at once, for there may be very many."""
        order = np.argsort(self.shard_ids, kind="stable")
        bounds = np.flatnonzero(np.diff(self.shard_ids[order])) + 1
        parts = np.split(order, bounds) if len(order) else []
        return {self.shard_names[self.shard_ids[part[0]]]: part for part in parts}

    def key(self, row: int) -> str:
        """The key of a row."""
        return self._index.take([row]).column("key")[0].as_py()

    def column(self, name: str, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Offsets or sizes of some rows; `NOWHERE` where a sample has no such thing."""
        if name not in self._index.column_names:
            return np.full(len(rows), NOWHERE)
        return self._index.integers(name, rows)

    def check_manifest(self, shard: ShardMap, manifest: Manifest) -> None:
        """Compares a shard's size and the index's offsets with the manifest.

        Raises:
            DamagedShardError: if they disagree.
        """
        if len(shard) != manifest.size:
            raise DamagedShardError(
                f"the tar has {len(shard)} bytes, but its manifest says {manifest.size}.",
                shard=shard.name,
                offset=min(len(shard), manifest.size),
            )
        rows = self._rows_of[shard.name]
        listed: dict[str, list[tuple[int, int]]] = {}
        for member, _ in manifest.members:
            listed.setdefault(member.suffix, []).append((member.offset, member.size))
        for suffix, places in listed.items():
            offsets = self.column(member_column(suffix, "offset"), rows)
            sizes = self.column(member_column(suffix, "bytes"), rows)
            there = offsets != NOWHERE
            mine = np.stack([offsets[there], sizes[there]], axis=1)
            if not np.array_equal(mine[mine[:, 0].argsort()], np.asarray(places)):
                raise DamagedShardError(
                    "index and manifest disagree. Run `vla-lens shards index`.",
                    shard=shard.name,
                    member=suffix,
                )

    def tensor_starts(
        self, shard: ShardMap, suffix: str, name: str, rows: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], TensorEntry]:
        """Offsets of one tensor in one shard, after a look at every header.

        Raises:
            DamagedShardError: if a sample has no such tensor, a header cannot be read, or header
                and index disagree, or two samples differ in its shape.
        """
        starts = self.column(tensor_column(suffix, name, "offset"), rows)
        members = self.column(member_column(suffix, "offset"), rows)
        self._require(starts != NOWHERE, shard, suffix, rows, f"the sample has no tensor {name}.")
        ids = self._read_headers(shard, suffix, rows)
        entries = {i: self._headers[i].get(name) for i in np.unique(ids).tolist()}
        first = next((entry for entry in entries.values() if entry is not None), None)
        for i, entry in entries.items():
            same = entry is not None and first is not None and entry[:2] == first[:2]
            agree = (ids != i) | (starts == members + (entry.start if entry and same else NOWHERE))
            text = f"the header does not place {name} where the index does, or as in other samples."
            self._require(agree, shard, suffix, rows, text)
        assert first is not None
        return starts, first

    def _read_headers(
        self, shard: ShardMap, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Which header each row's member has; each row's is read and checked once."""
        ids = self._header_ids.setdefault(suffix, np.full(self._index.num_rows, _UNREAD, np.int32))
        unread = rows[ids[rows] == _UNREAD]
        for start in range(0, len(unread), _HEADER_ROWS):
            some = unread[start : start + _HEADER_ROWS]
            offsets = self.column(member_column(suffix, "offset"), some)
            sizes = self.column(member_column(suffix, "bytes"), some)
            inside = (offsets >= 0) & (sizes >= 8) & (offsets <= len(shard) - sizes)
            self._require(inside, shard, suffix, some, "the member does not lie in the tar.")
            lengths = 8 + shard.records(8)[offsets].view("<u8")
            fits = lengths <= sizes.astype(np.uint64)
            self._require(fits, shard, suffix, some, "the safetensors header is too long.")
            pairs = np.stack([lengths.astype(np.int64), sizes], axis=1)
            for length, size in np.unique(pairs, axis=0).tolist():
                same = (pairs == (length, size)).all(axis=1)
                found = self._header_group(shard, suffix, some[same], offsets[same], length, size)
                ids[some[same]] = found
        return ids[rows].astype(np.int64)

    def _header_group(
        self,
        shard: ShardMap,
        suffix: str,
        rows: Int64[np.ndarray, " n"],
        offsets: Int64[np.ndarray, " n"],
        length: int,
        size: int,
    ) -> Int64[np.ndarray, " n"]:
        heads = np.empty(len(rows), f"V{length}")
        shard.gather(offsets, heads, np.arange(len(rows)))
        content = heads.view(np.uint8).reshape(len(rows), length)
        like_first = (content == content[0]).all(axis=1)
        found = np.empty(len(rows), np.int64)
        found[like_first] = self._header_id(content[0].tobytes(), size, shard, suffix, rows[0])
        for i in np.flatnonzero(~like_first):
            found[i] = self._header_id(content[i].tobytes(), size, shard, suffix, rows[i])
        return found

    def _header_id(
        self, head: bytes, size: int, shard: ShardMap, suffix: str, row: np.integer
    ) -> int:
        if (head, size) not in self._known:
            try:
                self._headers.append(parse_header(head, size))
            except ValueError as error:
                raise self._damaged(shard, suffix, int(row), str(error)) from error
            self._known[(head, size)] = len(self._headers) - 1
        return self._known[(head, size)]

    def _require(
        self,
        good: np.ndarray,
        shard: ShardMap,
        suffix: str,
        rows: Int64[np.ndarray, " n"],
        reason: str,
    ) -> None:
        if not good.all():
            raise self._damaged(shard, suffix, int(rows[int(np.argmin(good))]), reason)

    def _damaged(self, shard: ShardMap, suffix: str, row: int, reason: str) -> DamagedShardError:
        offset = int(self.column(member_column(suffix, "offset"), np.asarray([row]))[0])
        return DamagedShardError(
            reason,
            shard=shard.name,
            key=self.key(row),
            member=suffix,
            offset=None if offset == NOWHERE else offset,
        )
