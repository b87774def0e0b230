"""A data set at an address: what is there, its index, and its shards."""

import concurrent.futures
import hashlib
import logging
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jax_bridge.shards.cache_folder import cache_folder
from jax_bridge.shards.dataset_folder import mapped, read_info_bytes
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.errors_file import errors_in
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import concatenate, index_bytes, open_index_file, read_index_file
from jax_bridge.shards.index_rows import rows_from_tar
from jax_bridge.shards.index_table import IndexTable
from jax_bridge.shards.places import Places
from jax_bridge.shards.remote.block_cache import BlockCache
from jax_bridge.shards.remote.download import download
from jax_bridge.shards.remote.mirror import PARALLEL, Mirror
from jax_bridge.shards.remote.read_ahead import ReadAhead
from jax_bridge.shards.remote.refusals import ChangedObjectError
from jax_bridge.shards.remote.remote_shard import RemoteShard
from jax_bridge.shards.remote.store import ObjectInfo, RemoteStore
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.shard_map import ShardMaps
from jax_bridge.shards.source import digest_of_digests

_log = logging.getLogger(__name__)
INFO, INDEX, ERRORS = "dataset.json", "index.parquet", "errors.jsonl"
LOOKS = 3
"""How often to look again where a file is being replaced just now."""
Listing = Mapping[str, ObjectInfo]


class RemoteSource:
    """An address; see `Source`.

    Args:
        store: the address.
        root: what lies right there; None where it cannot be listed.
        shards: what lies in its folder of shards; None where it cannot be listed.
        folder: where its bytes are kept; by default one of its own below the cache.
    """

    max_open = 96

    def __init__(
        self,
        store: RemoteStore,
        root: Listing | None,
        shards: Listing | None,
        folder: pathlib.Path | None = None,
    ) -> None:
        self.store = store
        self._root, self._shards = root, shards
        self._folder = folder or remote_folder(store.address)
        self._cache = BlockCache(self._folder / "blocks")
        self._mirror = Mirror(store, self._folder / "mirror")

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteSource, (self.store, self._root, self._shards, self._folder))

    @classmethod
    def at(cls, address: str) -> "RemoteSource":
        """Looks at an address.

        Raises:
            ValueError: if nothing opens such an address.
            OSError: if it cannot be reached.
        """
        store = RemoteStore(address)
        if not store.lists:
            return cls(store, None, None)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            try:
                root, shards = pool.map(store.listing, ("", "shards"))
                return cls(store, root, shards)
            except PermissionError as error:
                _log.info("%s The index alone says which shards there are.", error)
        return cls(store, None, None)

    # ------------------------------------------------------------------ what a data set asks for

    @property
    def path(self) -> str:
        """The address."""
        return self.store.address

    def read_ahead(self, maps: ShardMaps, places: Places) -> ReadAhead:
        """Fetches what is read before it is."""
        return ReadAhead(maps, places)

    def open(self, name: str) -> RemoteShard:
        """A shard, of which nothing is read yet."""
        about = None if self._shards is None else self._shards.get(f"{name}.tar")
        return RemoteShard(name, self.store, self._cache, about)

    def check(self, shard: RemoteShard, places: Places) -> None:
        """Compares the tar's size with the index; its manifest would be much to read."""
        places.check_size(shard)

    def errors(self) -> set[EpisodeId]:
        """Episodes that `errors.jsonl` names."""
        try:
            return errors_in(self._file(ERRORS).read_bytes())
        except FileNotFoundError:
            return set()

    def content_digest(self) -> str:
        """A digest of the shards' manifests, of which each is read once."""
        names = self._names_of(".json")
        if names is None:
            names = open_index_file(self._file(INDEX), "index")[1]
        manifests = [f"shards/{name}.json" for name in names]
        if self._shards is None:
            with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
                objects = dict(zip(manifests, pool.map(self.store.about, manifests), strict=True))
        else:
            objects = {name: self._shards[name.removeprefix("shards/")] for name in manifests}
        return digest_of_digests(list(self._mirror.digests(objects).values()))

    # ------------------------------------------------------------------ opening

    def info(self) -> DatasetInfo:
        """Reads `dataset.json`.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it cannot be read.
        """
        try:
            content = self._file(INFO).read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"`path` must be the address of a data set, but {self.path} has no dataset.json, "
                f"or is not there.{self._what_is_there()} Give the address that `vla-lens collect "
                "--out` wrote."
            ) from error
        return read_info_bytes(content, f"{self.path}/{INFO}")

    def index(self) -> IndexTable:
        """The index; where it does not cover all shards, what is missing is read of them.

        Raises:
            FileNotFoundError: if there is none, and shards cannot be listed.
            DamagedShardError: if rows cannot be read.
        """
        names = self._whole_shards()
        try:
            index, covered = open_index_file(self._file(INDEX), "index")
            if names is None or covered == names:
                return index
        except FileNotFoundError as error:
            if names is None:
                raise FileNotFoundError(
                    f"`path` must have an index where it cannot be listed, but {self.path} has no "
                    "index.parquet. Run `vla-lens shards index` where the data set was written, "
                    "and copy index.parquet there."
                ) from error
            index, covered = None, []
        except DamagedShardError:
            if names is None:
                raise
            index, covered = None, []
        return self._composed(names, index, covered)

    def _composed(
        self, names: list[str], index: IndexTable | None, covered: list[str]
    ) -> IndexTable:
        assert self._shards is not None
        tars = {name: self._shards[f"{name}.tar"].stamp for name in names}
        stamp = "\n".join(f"{name} {stamp}" for name, stamp in tars.items())
        found = self._mirror.kept("composed-index", stamp)
        if found is None:
            new = [name for name in names if name not in covered]
            _log.info("%s: %d shards are not in its index; reading theirs.", self.path, len(new))
            with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
                parts = list(pool.map(self._rows, new))
            if index is not None:
                still = pc.field("shard").isin(sorted({*names} & {*covered}))
                parts.append(index.to_table().filter(still))
            content = index_bytes(concatenate(parts), names)
            found = self._mirror.keep("composed-index", stamp, content)
        return open_index_file(found, "index")[0]

    def _rows(self, name: str) -> pa.Table:
        assert self._shards is not None
        about = self._shards.get(f"{name}.parquet")
        if about is not None:
            return read_index_file(self._mirror.file(f"shards/{name}.parquet", about), name)[0]
        with tempfile.TemporaryDirectory(prefix="vla-lens-rows-") as folder:
            tar = pathlib.Path(folder) / f"{name}.tar"
            download(self.store, f"shards/{name}.tar", tar)
            with mapped(tar) as content:
                return rows_from_tar(content, name)

    def _whole_shards(self) -> list[str] | None:
        """Those whose manifest is there: it comes last."""
        tars, manifests = self._names_of(".tar"), self._names_of(".json")
        if tars is None or manifests is None:
            return None
        return sorted({*tars} & {*manifests})

    def _names_of(self, suffix: str) -> list[str] | None:
        """Shards that have such a file, sorted; None where that is not known."""
        if self._shards is None:
            return None
        stems = (name.removesuffix(suffix) for name in self._shards if name.endswith(suffix))
        return sorted(stem for stem in stems if not stem.startswith("."))

    def _file(self, name: str) -> pathlib.Path:
        """A small object as a file of this machine.

        Raises:
            FileNotFoundError: if it is not there.
        """
        about = None if self._root is None else self._root.get(name)
        if self._root is not None and about is None:
            raise FileNotFoundError(f"{self.path}/{name}")
        for _ in range(LOOKS):
            try:
                return self._mirror.file(name, about or self.store.about(name))
            except ChangedObjectError:
                about = self.store.about(name)
        return self._mirror.file(name, about or self.store.about(name))

    def _what_is_there(self) -> str:
        names = [*(self._root or {}), *(self._shards or {})]
        tars = sum(name.endswith(".tar") for name in names)
        if not tars:
            return ""
        return f" There are {tars} tars of somebody else's making: copy one to look into it."


def remote_folder(address: str) -> pathlib.Path:
    """Where bytes of an address are kept on this machine."""
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:24]
    return cache_folder() / "remote" / digest
