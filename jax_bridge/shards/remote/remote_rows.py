"""Which shards stand whole at an address, which episodes they hold, and the index of them all."""

import concurrent.futures
import os
import tempfile
import types
from collections.abc import Collection

from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import read_index_file, write_index, write_rows
from jax_bridge.shards.remote.download import download
from jax_bridge.shards.remote.store import RemoteStore
from jax_bridge.shards.sample_key import EpisodeId

PARALLEL = 8
"""Files of rows that are read at one time."""
_EPISODE = list(EpisodeId._fields)


class RemoteRows:
    """The index rows of an address's whole shards, in a temporary folder.

    The folder looks like the data set, with tars of no bytes, so that the index made of it is the
    one that a local data set gets. A shard is whole when its tar and its manifest are there: the
    manifest comes last.
    """

    def __init__(self, store: RemoteStore) -> None:
        self._store = store
        self._temporary = tempfile.TemporaryDirectory(
            prefix="vla-lens-rows-", ignore_cleanup_errors=True
        )
        self.folder = DatasetFolder(self._temporary.name)
        self.folder.create()
        self.listed: set[str] = set()
        """Names of the tars at the last look, those of unfinished uploads included."""
        self.shards: dict[str, frozenset[EpisodeId]] = {}
        """The episodes of each whole shard, at the last look."""

    def __enter__(self) -> "RemoteRows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the temporary folder."""
        self._temporary.cleanup()

    @property
    def episodes(self) -> set[EpisodeId]:
        """Of all whole shards."""
        return {episode for episodes in self.shards.values() for episode in episodes}

    @property
    def unfinished(self) -> list[str]:
        """Tars without a manifest: somebody uploads them just now, or was stopped."""
        return sorted(self.listed - set(self.shards))

    def refresh(self, files: Collection[str] | None = None) -> None:
        """Looks again; reads only what is new.

        Args:
            files: names in the folder of shards; None lists them.

        Raises:
            OSError: if the address cannot be listed or read.
            DamagedShardError: if a shard's rows cannot be read.
        """
        files = self._store.names("shards") if files is None else files
        self.listed = _stems(files, ".tar")
        whole, rows = self.listed & _stems(files, ".json"), _stems(files, ".parquet")
        for name in set(self.shards) - whole:
            del self.shards[name]
            self.folder.tar(name).unlink()
            self.folder.rows(name).unlink()
        new = sorted(whole - set(self.shards))
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            found = list(pool.map(lambda name: self._fetch(name, there=name in rows), new))
        self.shards |= dict(zip(new, found, strict=True))

    def write_index(self) -> int:
        """Writes `index.parquet` at the address; returns the number of samples.

        Looks again afterwards: a shard that another machine finished meanwhile must not be
        missing from an index that was written later.

        Raises:
            DamagedShardError: if a sample stands in two shards.
        """
        while True:
            names = set(self.shards)
            table = write_index(self.folder)
            if not self._is_current():
                self._store.upload(self.folder.index_path, "index.parquet")
            self.refresh()
            if set(self.shards) == names:
                return table.num_rows

    def _is_current(self) -> bool:
        try:
            if self._store.size("index.parquet") != self.folder.index_path.stat().st_size:
                return False
            return self._store.read("index.parquet") == self.folder.index_path.read_bytes()
        except FileNotFoundError:
            return False

    def _fetch(self, name: str, *, there: bool) -> frozenset[EpisodeId]:
        if there:
            self.folder.rows(name).write_bytes(self._store.read(f"shards/{name}.parquet"))
        else:
            self._make(name)
        self.folder.tar(name).touch()
        try:
            table, _ = read_index_file(self.folder.rows(name), name)
        except DamagedShardError as error:
            raise DamagedShardError(
                f"its index rows at {self._store.address} cannot be read. Remove "
                f"shards/{name}.parquet, and run `vla-lens shards index {self._store.address}`.",
                shard=name,
            ) from error
        groups = table.select(_EPISODE).group_by(_EPISODE).aggregate([]).to_pylist()
        return frozenset(EpisodeId(**g) for g in groups if None not in g.values())

    def _make(self, name: str) -> None:
        """Rows that nobody uploaded, from the tar."""
        download(self._store, f"shards/{name}.tar", self.folder.tar(name))
        write_rows(self.folder, name)
        os.truncate(self.folder.tar(name), 0)
        self._store.upload(self.folder.rows(name), f"shards/{name}.parquet")


def _stems(files: Collection[str], suffix: str) -> set[str]:
    stems = {file.removesuffix(suffix) for file in files if file.endswith(suffix)}
    return {stem for stem in stems if stem and not stem.startswith(".")}
