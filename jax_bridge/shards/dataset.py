"""`open_dataset`: choosing samples by the index and reading only the bytes that are asked for."""

import difflib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.field import FieldSpec
from jax_bridge.shards.index import current_index
from jax_bridge.shards.index_rows import MEMBER, TENSOR, member_column
from jax_bridge.shards.index_table import IndexTable
from jax_bridge.shards.places import Places
from jax_bridge.shards.projection import FlowTimes, Layers, Projection, project, whole
from jax_bridge.shards.remote.address import is_address
from jax_bridge.shards.safetensors_header import TensorEntry
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.selection import Where, select_rows
from jax_bridge.shards.shard_map import Shard, ShardMaps
from jax_bridge.shards.source import LocalSource, Source

_log = logging.getLogger(__name__)
ROBOT = "robot.safetensors"
OnError = Literal["raise", "skip"]
READ_AHEAD = 2
"""Batches that are fetched before they are asked for, where that takes time."""


def open_dataset(path: str | os.PathLike[str]) -> "ShardDataset":
    """Opens a data set; one without an index is indexed first.

    Args:
        path: a folder, or an address such as `s3://bucket/data`.

    Raises:
        FileNotFoundError: if the folder is no data set.
        ValueError: if `dataset.json` cannot be read, or a shard cannot be indexed.
        OSError: if an address cannot be read; PermissionError says how to log in.
    """
    if is_address(path):
        # Whoever reads from a folder need not load what opens addresses.
        from jax_bridge.shards.remote.remote_source import RemoteSource

        source = RemoteSource.at(os.fspath(path))
        return ShardDataset(source, source.info(), source.index())
    folder = DatasetFolder(path)
    info = folder.read_info()
    return ShardDataset(LocalSource(folder), info, current_index(folder))


class ShardDataset:
    """A data set as it stood when it was opened."""

    def __init__(self, source: Source, info: DatasetInfo, index: IndexTable) -> None:
        self.path = source.path
        """The folder, or the address as text."""
        self.info = info
        self.index = index
        """One row per sample: metadata, and where each member and tensor lies. A column is read
        when it is asked for."""
        self.damaged: dict[int, str] = {}
        """Rows that `on_error="skip"` left out so far, and why."""
        self._source = source
        self._maps = ShardMaps(source.open, source.max_open)
        self._places = Places(index)
        self._ahead = source.read_ahead(self._maps, self._places)
        self._checked: dict[str, DamagedShardError | None] = {}
        """Shards that were compared with their manifests, and what was wrong."""

    def __len__(self) -> int:
        return self.index.num_rows

    def again(self) -> "ShardDataset":
        """The same rows, as if opened anew at the same moment: nothing was read or skipped."""
        return ShardDataset(self._source, self.info, self.index)

    @property
    def fields(self) -> dict[str, FieldSpec]:
        """The tensors of each sample, by name."""
        return self.info.fields

    @property
    def fingerprint(self) -> str:
        """Of how the data set was made."""
        return self.info.fingerprint

    @property
    def errors(self) -> set[EpisodeId]:
        """Episodes that ended in an error and have no samples, by `errors.jsonl`."""
        errors = self._source.errors()
        if not errors:
            return errors
        columns = list(EpisodeId._fields)
        episodes = self.index.select(columns).group_by(columns).aggregate([])
        return errors - {EpisodeId(**row) for row in episodes.to_pylist()}

    @property
    def metadata(self) -> IndexTable:
        """The index without the columns that say where things lie."""
        names = [n for n in self.index.column_names if not n.startswith((MEMBER, TENSOR))]
        return self.index.select(names)

    @property
    def content_digest(self) -> str:
        """A digest of the shards' manifests, which hold the digest of every member.

        At an address each manifest is read once; equal data sets have equal digests wherever they
        lie.
        """
        return self._source.content_digest()

    def read_ahead(self, rows: Sequence[int] | np.ndarray) -> None:
        """Says which rows are read next: what was last read of others is fetched of them.

        At an address into the cache, in a folder from the disk into memory.
        """
        if self._ahead is not None:
            self._ahead.later(self._chosen(None, rows))

    def select(self, where: Where = None) -> Int64[np.ndarray, " n"]:
        """Row numbers that fulfil a condition, in the order of the index.

        Raises:
            ValueError: if the condition names an unknown column or compares different kinds.
        """
        return select_rows(self.metadata, where)

    def read(
        self,
        field: str,
        *,
        layers: Layers = None,
        flow_times: FlowTimes = None,
        where: Where = None,
        rows: Sequence[int] | np.ndarray | None = None,
        on_error: OnError = "raise",
    ) -> np.ndarray:
        """Reads one field of some samples, only the bytes that are asked for.

        Args:
            field: name of the field.
            layers: layer numbers as captured; None takes all.
            flow_times: flow times, the nearest within 1e-3; None takes all.
            where: which samples; see `select`.
            rows: which samples, by row number, in the order wanted; not together with `where`.
            on_error: `skip` leaves damaged samples out and notes them in `damaged`.

        Returns:
            [n, layers, flow_times, ...] in the field's dtype, bfloat16 as ml_dtypes'.

        Raises:
            ValueError: if the field, a layer or a time was not captured, or nothing is selected.
            DamagedShardError: naming shard, key, member and offset.
        """
        spec = self._spec(field)
        projection = project(spec, layers, flow_times)
        chosen = self._chosen(where, rows)
        return self._read(spec.member, field, chosen, projection, spec, on_error)[0]

    def read_robot(
        self,
        name: Literal["state", "actions", "executed", "action_is_pad"],
        *,
        where: Where = None,
        rows: Sequence[int] | np.ndarray | None = None,
        on_error: OnError = "raise",
    ) -> np.ndarray:
        """Reads robot state or actions of some samples, [n, ...]; arguments as of `read`.

        Raises:
            ValueError: if nothing is selected.
            DamagedShardError: naming shard, key, member and offset; also where a sample has none.
        """
        chosen = self._chosen(where, rows)
        entry = self._robot_entry(name, chosen, on_error)
        if entry is None:
            return np.empty((0,), np.float32)
        projection = whole(entry.dtype, entry.shape)
        return self._read(ROBOT, name, chosen, projection, entry, on_error)[0]

    def read_members(self, suffix: str, rows: Sequence[int] | np.ndarray) -> list[bytes]:
        """Reads whole members, as `base.jpg`, of some samples.

        Raises:
            ValueError: if no sample has such a member.
            DamagedShardError: naming shard, key and member; also where a sample has none.
        """
        chosen = self._chosen(None, rows)
        names = [member_column(suffix, what) for what in ("offset", "bytes")]
        if not set(names) <= set(self.index.column_names):
            raise ValueError(f"`suffix` must be of members that there are, but got {suffix!r}.")
        places = self.index.select(names).take(chosen).to_pylist()
        return [
            self._read_member(suffix, row, *place.values())
            for row, place in zip(chosen, places, strict=True)
        ]

    def _read_member(self, suffix: str, row: np.int64, offset: int | None, size: int) -> bytes:
        shard = self._shard(self._places.shard_names[self._places.shard_ids[row]])
        if offset is None or offset + size > len(shard):
            reason = "the sample has none." if offset is None else "it does not lie in the tar."
            key = self._places.key(int(row))
            raise DamagedShardError(reason, shard=shard.name, key=key, member=suffix)
        content = np.empty(1, f"V{size}")
        shard.gather(np.asarray([offset]), content, np.zeros(1, np.int64))
        return content.tobytes()

    def iter_batches(
        self,
        fields: str | Sequence[str],
        *,
        batch_size: int,
        layers: Layers = None,
        flow_times: FlowTimes = None,
        where: Where = None,
        rows: Sequence[int] | np.ndarray | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[dict[str, np.ndarray]]:
        """Reads in batches; memory is bounded by the batch size.

        `layers` and `flow_times` are taken of those fields that have such an axis.

        Yields:
            The fields by name, and `rows`, the row numbers.

        Raises:
            ValueError: as `read`, or if no field has the axis that is asked for.
            DamagedShardError: naming shard, key, member and offset.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive, but got {batch_size}.")
        names = [fields] if isinstance(fields, str) else list(fields)
        specs = [self._spec(name) for name in names]
        has_layer = [s.layers is not None for s in specs]
        has_time = [s.flow_times is not None for s in specs]
        projections = [
            project(
                spec,
                layers if layer or not any(has_layer) else None,
                flow_times if time or not any(has_time) else None,
            )
            for spec, layer, time in zip(specs, has_layer, has_time, strict=True)
        ]
        return self._batches(specs, projections, self._chosen(where, rows), batch_size, on_error)

    def _batches(
        self,
        specs: Sequence[FieldSpec],
        projections: Sequence[Projection],
        chosen: Int64[np.ndarray, " n"],
        batch_size: int,
        on_error: OnError,
    ) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(chosen), batch_size):
            rows = chosen[start : start + batch_size]
            if start and self._ahead is not None:
                self._ahead.later(chosen[start + batch_size :][: READ_AHEAD * batch_size])
            parts = [
                self._read(spec.member, spec.name, rows, projection, spec, on_error)
                for spec, projection in zip(specs, projections, strict=True)
            ]
            good = np.logical_and.reduce([kept for _, kept in parts])
            batch = {
                spec.name: part[good[kept]] if not good.all() else part
                for spec, (part, kept) in zip(specs, parts, strict=True)
            }
            yield {**batch, "rows": rows[good]}

    def _spec(self, field: str) -> FieldSpec:
        if field not in self.fields:
            near = difflib.get_close_matches(field, self.fields, n=3, cutoff=0.5)
            known = ", ".join(near or self.fields) or "none"
            word = "near ones are" if near else "there are"
            raise ValueError(
                f"`field` must be a captured field, but got {field!r}; {word} {known}."
            )
        return self.fields[field]

    def _chosen(
        self, where: Where, rows: Sequence[int] | np.ndarray | None
    ) -> Int64[np.ndarray, " n"]:
        if rows is None:
            chosen = self.select(where)
            if not len(chosen):
                raise ValueError(
                    f"`where` must select at least one sample, but got {where}, which selects "
                    f"none of the {len(self)} samples of {self.path}. `vla-lens shards inspect` "
                    "shows what there is."
                )
            return chosen
        if where is not None:
            raise ValueError("`rows` must be None where `where` is given, but got both.")
        given = np.asarray(rows)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(
                f"`rows` must be a vector of row numbers, but got {given.dtype} {given.shape}."
            )
        chosen = given.astype(np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise ValueError(
                f"`rows` must lie in [0, {len(self)}), but got {chosen.min()} to {chosen.max()}."
            )
        return chosen

    def _robot_entry(
        self, name: str, rows: Int64[np.ndarray, " n"], on_error: OnError
    ) -> TensorEntry | None:
        """Dtype and shape of a robot tensor, by the first sample whose header can be read."""
        for row in rows:
            try:
                shard = self._shard(self._places.shard_names[self._places.shard_ids[row]])
                return self._places.tensor_starts(shard, ROBOT, name, row[None])[1]
            except DamagedShardError as error:
                if on_error != "skip":
                    raise
                self._note(int(row), error)
        return None

    def _read(
        self,
        suffix: str,
        name: str,
        rows: Int64[np.ndarray, " n"],
        projection: Projection,
        expected: FieldSpec | TensorEntry,
        on_error: OnError,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads rows; returns them and which of `rows` they are (all, unless some are skipped)."""
        target = np.empty((len(rows), len(projection.offsets)), f"V{projection.run_bytes}")
        kept = np.ones(len(rows), np.bool_)
        ids = self._places.shard_ids[rows]
        order = np.argsort(ids, kind="stable")
        bounds = np.flatnonzero(np.diff(ids[order])) + 1
        groups = np.split(order, bounds) if len(rows) else []
        for positions in self._fetched(suffix, name, rows, groups, projection):
            try:
                self._read_shard(suffix, name, rows, positions, projection, expected, target)
            except DamagedShardError:
                if on_error != "skip":
                    raise
                for position in positions:
                    single = np.asarray([position])
                    try:
                        self._read_shard(suffix, name, rows, single, projection, expected, target)
                    except DamagedShardError as error:
                        kept[position] = False
                        self._note(int(rows[position]), error)
        shape = (len(rows), *projection.shape)
        if not projection.run_bytes:
            return np.zeros(shape, projection.dtype)[kept], kept
        result = target.view(projection.dtype).reshape(shape)
        return (result if kept.all() else result[kept]), kept

    def _fetched(
        self,
        suffix: str,
        name: str,
        rows: Int64[np.ndarray, " n"],
        groups: list[Int64[np.ndarray, " _"]],
        projection: Projection,
    ) -> Iterable[Int64[np.ndarray, " _"]]:
        """Places of rows by shard, each when its bytes are at hand."""
        if self._ahead is None:
            return groups
        return self._ahead.in_time(suffix, name, rows, groups, projection)

    def _read_shard(
        self,
        suffix: str,
        name: str,
        rows: Int64[np.ndarray, " n"],
        positions: Int64[np.ndarray, " m"],
        projection: Projection,
        expected: Any,
        target: np.ndarray,
    ) -> None:
        here = rows[positions]
        shard = self._shard(self._places.shard_names[self._places.shard_ids[here[0]]])
        starts, entry = self._places.tensor_starts(shard, suffix, name, here)
        if entry.dtype != projection.dtype or entry.shape != tuple(expected.shape):
            raise DamagedShardError(
                f"{name} is {entry.dtype} {entry.shape}, but {projection.dtype} "
                f"{tuple(expected.shape)} was due.",
                shard=shard.name,
                key=self._places.key(int(here[0])),
                member=suffix,
                offset=int(starts[0]),
            )
        offsets = (starts[:, None] + projection.offsets).reshape(-1)
        runs = np.arange(target.shape[1])
        places = (positions[:, None] * len(runs) + runs).reshape(-1)
        shard.gather(offsets, target.reshape(-1), places)

    def _shard(self, name: str) -> Shard:
        shard = self._maps.get(name)
        if name not in self._checked:
            try:
                self._source.check(shard, self._places)
                self._checked[name] = None
            except DamagedShardError as error:
                self._checked[name] = error
        damage = self._checked[name]
        if damage is not None:
            raise damage.with_traceback(None)
        return shard

    def _note(self, row: int, error: DamagedShardError) -> None:
        if row not in self.damaged:
            self.damaged[row] = str(error)
            _log.warning("Skipped (%d so far): %s", len(self.damaged), error)
