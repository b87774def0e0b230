"""The safetensors headers of members: each read and checked once, the same ones kept once."""

import threading
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from jax_bridge.shards.index_places import NOWHERE, IndexPlaces
from jax_bridge.shards.index_rows import member_column
from jax_bridge.shards.safetensors_header import TensorEntry, parse_header
from jax_bridge.shards.shard_map import Shard

_UNREAD = -1
_AT_ONCE = 1024
"""Rows whose headers are held at one time."""
_PREFIX = 8
"""Bytes that tell how long a header is."""


class Headers:
    """Which header each row's member has; can be used from several threads.

    On this machine every member's header is compared. At an address each look moves bytes: there
    one member of each size in a shard is looked at, and the index must place all others alike.
    """

    def __init__(self, places: IndexPlaces) -> None:
        self._places = places
        self._ids: dict[str, Int32[np.ndarray, " rows"]] = {}
        self._headers: list[dict[str, TensorEntry]] = []
        self._known: dict[tuple[bytes, int], int] = {}
        self._of_size: dict[tuple[str, str, int], int] = {}
        self._lengths: dict[str, dict[int, int]] = {}
        """Of each kind of member: size of the member, length of its header."""
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Headers, (self._places,))

    def __getitem__(self, number: int) -> dict[str, TensorEntry]:
        return self._headers[number]

    def ids(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"], *, each: bool = False
    ) -> Int64[np.ndarray, " n"]:
        """The number of each row's header.

        Args:
            shard: in which the rows lie.
            suffix: of the members.
            rows: samples.
            each: look at every row's, even where the shard is far away.

        Raises:
            DamagedShardError: if a header cannot be read.
        """
        with self._lock:
            empty = np.full(len(self._places), _UNREAD, np.int32)
            ids = self._ids.setdefault(suffix, empty)
            unread = rows if each else rows[ids[rows] == _UNREAD]
            for start in range(0, len(unread), _AT_ONCE):
                some = unread[start : start + _AT_ONCE]
                trusted = shard.trusts_index and not each
                read = self._one_of_each_size if trusted else self._all
                ids[some] = read(shard, suffix, some)
            return ids[rows].astype(np.int64)

    def starts(self, ids: Int64[np.ndarray, " n"], name: str) -> Int64[np.ndarray, " n"]:
        """Where a tensor starts in its member; `NOWHERE` where the header has none."""
        numbers, places = np.unique(ids, return_inverse=True)
        entries = [self._headers[i].get(name) for i in numbers.tolist()]
        found = np.array([NOWHERE if e is None else e.start for e in entries], np.int64)
        return found[places]

    def knows(self, suffix: str) -> bool:
        """Whether a header of this kind was read."""
        return suffix in self._lengths

    def unread(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " m 2"]:
        """Ranges in which the headers lie that `ids` will read, as far as that can be told."""
        offsets, sizes = self._members(suffix, rows)
        sizes, first = np.unique(sizes, return_index=True)
        ranges = [
            (offset, offset + min(size, self._likely_length(suffix, size)))
            for size, offset in zip(sizes.tolist(), offsets[first].tolist(), strict=True)
            if (shard.name, suffix, size) not in self._of_size
        ]
        return np.array(ranges, np.int64).reshape(-1, 2)

    def _members(
        self, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        offsets = self._places.column(member_column(suffix, "offset"), rows)
        return offsets, self._places.column(member_column(suffix, "bytes"), rows)

    def _inside(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        offsets, sizes = self._members(suffix, rows)
        inside = (offsets >= 0) & (sizes >= _PREFIX) & (offsets <= len(shard) - sizes)
        self._places.require(inside, shard, suffix, rows, "the member does not lie in the tar.")
        return offsets, sizes

    def _one_of_each_size(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        _, sizes = self._inside(shard, suffix, rows)
        found = np.empty(len(rows), np.int64)
        for size in np.unique(sizes).tolist():
            same = sizes == size
            place = (shard.name, suffix, size)
            if place not in self._of_size:
                self._of_size[place] = int(self._all(shard, suffix, rows[same][:1])[0])
            found[same] = self._of_size[place]
        return found

    def _all(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        offsets, sizes = self._inside(shard, suffix, rows)
        lengths = _PREFIX + self._prefixes(shard, suffix, offsets, sizes)
        fits = lengths <= sizes.astype(np.uint64)
        self._places.require(fits, shard, suffix, rows, "the safetensors header is too long.")
        pairs = np.stack([lengths.astype(np.int64), sizes], axis=1)
        found = np.empty(len(rows), np.int64)
        for length, size in np.unique(pairs, axis=0).tolist():
            same = (pairs == (length, size)).all(axis=1)
            found[same] = self._group(shard, suffix, rows[same], offsets[same], length, size)
            self._lengths.setdefault(suffix, {})[size] = length
        return found

    def _prefixes(
        self,
        shard: Shard,
        suffix: str,
        offsets: Int64[np.ndarray, " n"],
        sizes: Int64[np.ndarray, " n"],
    ) -> np.ndarray:
        """The lengths that members begin with, as they stand."""
        if shard.trusts_index:
            # The whole header comes along, so that it is not waited for a second time.
            for offset, size in zip(offsets.tolist(), sizes.tolist(), strict=True):
                length = min(size, self._likely_length(suffix, size))
                whole = np.empty(1, f"V{length}")
                shard.gather(np.array([offset]), whole, np.zeros(1, np.int64))
        found = np.empty(len(offsets), f"V{_PREFIX}")
        shard.gather(offsets, found, np.arange(len(offsets)))
        return found.view("<u8")

    def _likely_length(self, suffix: str, size: int) -> int:
        lengths = self._lengths.get(suffix, {})
        return lengths.get(size) or max(lengths.values(), default=_PREFIX)

    def _group(
        self,
        shard: Shard,
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
        found[like_first] = self._number(content[0].tobytes(), size, shard, suffix, rows[0])
        for i in np.flatnonzero(~like_first):
            found[i] = self._number(content[i].tobytes(), size, shard, suffix, rows[i])
        return found

    def _number(self, head: bytes, size: int, shard: Shard, suffix: str, row: np.integer) -> int:
        if (head, size) not in self._known:
            try:
                self._headers.append(parse_header(head, size))
            except ValueError as error:
                raise self._places.damaged(shard, suffix, int(row), str(error)) from error
            self._known[(head, size)] = len(self._headers) - 1
        return self._known[(head, size)]
