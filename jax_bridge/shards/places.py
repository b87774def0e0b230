"""Where tensors lie, out of the index, and whether the shards agree."""

import numpy as np
from jaxtyping import Int32, Int64

from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.headers import Headers
from jax_bridge.shards.index_places import NOWHERE, IndexPlaces
from jax_bridge.shards.index_rows import member_column, tensor_column
from jax_bridge.shards.index_table import IndexTable
from jax_bridge.shards.manifest import Manifest
from jax_bridge.shards.safetensors_header import TensorEntry
from jax_bridge.shards.shard_map import Shard
from jax_bridge.shards.tar_layout import END, padded


class Places:
    """Offsets of tensors by row, and the headers that were read so far."""

    def __init__(self, index: IndexTable) -> None:
        self._index = IndexPlaces(index)
        self._headers = Headers(self._index)

    @property
    def shard_names(self) -> list[str]:
        """The shards that have rows."""
        return self._index.shard_names

    @property
    def shard_ids(self) -> Int32[np.ndarray, " rows"]:
        """Each row's place in `shard_names`."""
        return self._index.shard_ids

    def key(self, row: int) -> str:
        """The key of a row."""
        return self._index.key(row)

    def check_manifest(self, shard: Shard, manifest: Manifest) -> None:
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
        rows = self._index.rows_of[shard.name]
        listed: dict[str, list[tuple[int, int]]] = {}
        for member, _ in manifest.members:
            listed.setdefault(member.suffix, []).append((member.offset, member.size))
        for suffix, places in listed.items():
            offsets = self._index.column(member_column(suffix, "offset"), rows)
            sizes = self._index.column(member_column(suffix, "bytes"), rows)
            there = offsets != NOWHERE
            mine = np.stack([offsets[there], sizes[there]], axis=1)
            if not np.array_equal(mine[mine[:, 0].argsort()], np.asarray(places)):
                raise DamagedShardError(
                    "index and manifest disagree. Run `vla-lens shards index`.",
                    shard=shard.name,
                    member=suffix,
                )

    def check_size(self, shard: Shard) -> None:
        """Compares a shard's size with the index, where a manifest would cost too much to read.

        Raises:
            DamagedShardError: if the tar is shorter than its members.
        """
        rows = self._index.rows_of[shard.name]
        ends = [0]
        for suffix in self._index.suffixes:
            offsets = self._index.column(member_column(suffix, "offset"), rows)
            last = int(offsets.argmax())
            size = self._index.column(member_column(suffix, "bytes"), rows[[last]])[0]
            ends.append(int(offsets[last]) + padded(int(size)))
        if len(shard) < max(ends) + len(END):
            raise DamagedShardError(
                f"the tar has {len(shard)} bytes, but its members end at {max(ends)}; it was cut.",
                shard=shard.name,
                offset=len(shard),
            )

    def tensor_starts(
        self, shard: Shard, suffix: str, name: str, rows: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], TensorEntry]:
        """Offsets of one tensor in one shard, after a look at the headers.

        Raises:
            DamagedShardError: if a sample has no such tensor, a header cannot be read, or header
                and index disagree, or two samples differ in its shape.
        """
        starts = self._index.column(tensor_column(suffix, name, "offset"), rows)
        members = self._index.column(member_column(suffix, "offset"), rows)
        there = starts != NOWHERE
        self._index.require(there, shard, suffix, rows, f"the sample has no tensor {name}.")
        ids = self._headers.ids(shard, suffix, rows)
        unlike = starts != members + self._headers.starts(ids, name)
        if shard.trusts_index and unlike.any():
            ids[unlike] = self._headers.ids(shard, suffix, rows[unlike], each=True)
        entries = {i: self._headers[i].get(name) for i in np.unique(ids).tolist()}
        first = next((entry for entry in entries.values() if entry is not None), None)
        for i, entry in entries.items():
            same = entry is not None and first is not None and entry[:2] == first[:2]
            agree = (ids != i) | (starts == members + (entry.start if entry and same else NOWHERE))
            text = f"the header does not place {name} where the index does, or as in other samples."
            self._index.require(agree, shard, suffix, rows, text)
        assert first is not None
        return starts, first

    def knows_headers(self, suffix: str) -> bool:
        """Whether it is known how long the headers of such members are."""
        return self._headers.knows(suffix)

    def likely_starts(
        self, suffix: str, name: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Offsets of one tensor by the index alone; `NOWHERE` where a sample has none."""
        return self._index.column(tensor_column(suffix, name, "offset"), rows)

    def unread_headers(
        self, shard: Shard, suffix: str, rows: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " m 2"]:
        """Ranges in which the headers lie that `tensor_starts` will read."""
        return self._headers.unread(shard, suffix, rows)
