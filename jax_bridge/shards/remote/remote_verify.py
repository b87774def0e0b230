"""`vla-lens shards verify` and `index` at an address."""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

from jax_bridge.shards.dataset_folder import DatasetFolder, read_info_bytes
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import read_index_file
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.remote.download import download
from jax_bridge.shards.remote.remote_rows import RemoteRows
from jax_bridge.shards.remote.store import RemoteStore
from jax_bridge.shards.verify import VerifyReport, check_dataset_files, check_shard

_SUFFIXES = (".tar", ".json", ".parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteIndex:
    """What an index that was made at an address covers."""

    samples: int
    shards: int
    unfinished: tuple[str, ...]
    """Shards without a manifest, which it leaves out: their upload runs, or was stopped."""


def index_remote(address: str) -> RemoteIndex:
    """Makes `index.parquet` of the rows that lie beside the tars; rows that are missing as well.

    Raises:
        FileNotFoundError: if the address is no data set.
        OSError: if it cannot be listed, read or written.
        DamagedShardError: where a tar or its rows are damaged.
    """
    store = RemoteStore(address)
    with RemoteRows(store) as rows:
        _read_info(store, rows.folder)
        rows.refresh()
        samples = rows.write_index()
        return RemoteIndex(
            samples=samples, shards=len(rows.shards), unfinished=tuple(rows.unfinished)
        )


class RemoteVerification:
    """Checks every byte at an address, a few shards at a time on this machine's disk.

    Args:
        address: of the data set.

    Raises:
        FileNotFoundError: if the address is no data set.
        ValueError: if `dataset.json` cannot be read.
        OSError: if the address cannot be read.
    """

    def __init__(self, address: str) -> None:
        self._store = RemoteStore(address)
        self._temporary = tempfile.TemporaryDirectory(prefix="vla-lens-verify-")
        self._folder = DatasetFolder(self._temporary.name)
        self._folder.create()
        try:
            _read_info(self._store, self._folder)
            self.sizes: dict[str, int] = self._sizes()
            """Bytes of each tar."""
        except BaseException:
            self._temporary.cleanup()
            raise

    def run(self, *, workers: int, on_shard: Callable[[str, int], None]) -> VerifyReport:
        """Looks at all shards, then at the files that speak of them.

        Args:
            workers: threads, and shards that lie here at one time.
            on_shard: called after each shard with its name and size in bytes.

        Raises:
            OSError: if the address cannot be read, or the disk refuses.
        """
        with self._temporary, concurrent.futures.ThreadPoolExecutor(workers) as pool:
            problems: list[DamagedShardError] = []
            samples = 0
            names = sorted(self.sizes)
            for name, (found, count) in zip(names, pool.map(self._check, names), strict=True):
                problems += found
                samples += count
                on_shard(name, self.sizes[name])
            with contextlib.suppress(FileNotFoundError):
                download(self._store, "index.parquet", self._folder.index_path)
            problems += check_dataset_files(self._folder, names)
            return VerifyReport(
                shards=len(names),
                samples=samples,
                bytes=sum(self.sizes.values()),
                problems=tuple(map(self._renamed, problems)),
                unfinished=tuple(pathlib.Path(f"{name}.tar") for name in self._unfinished),
            )

    def _sizes(self) -> dict[str, int]:
        try:
            listed = self._store.listing("shards")
        except PermissionError:
            return self._sizes_by_index()
        files = {name: about.size for name, about in listed.items() if name[0] != "."}
        # What has a tar, but no manifest, was never finished; readers do not see it.
        tars, manifests, rows = ({_stem(f, s) for f in files} - {""} for s in _SUFFIXES)
        self._unfinished = sorted(tars - manifests)
        names = manifests | (rows - tars)
        return {name: files.get(f"{name}.tar", 0) for name in names}

    def _sizes_by_index(self) -> dict[str, int]:
        """Where nothing can be listed the index says what there is."""
        self._unfinished = list[str]()
        try:
            download(self._store, "index.parquet", self._folder.index_path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"`dataset` must be an address that can be listed or has an index, but "
                f"{self._store.address} has no index.parquet. Copy it into a folder first."
            ) from error
        _, names = read_index_file(self._folder.index_path, "(index)")
        return {name: self._size(f"shards/{name}.tar") for name in names}

    def _size(self, name: str) -> int:
        try:
            return self._store.size(name)
        except FileNotFoundError:
            return 0

    def _check(self, name: str) -> tuple[list[DamagedShardError], int]:
        folder = self._folder
        tar = folder.tar(name)
        for path in (tar, folder.manifest(name), folder.rows(name)):
            with contextlib.suppress(FileNotFoundError):
                download(self._store, f"shards/{path.name}", path)
        found = check_shard(folder, name)
        tar.unlink(missing_ok=True)
        return found, _samples(folder, name)

    def _renamed(self, problem: DamagedShardError) -> DamagedShardError:
        """Says the address where the temporary folder stands."""
        return DamagedShardError(
            problem.reason.replace(str(self._folder.path), self._store.address),
            shard=problem.shard,
            key=problem.key,
            member=problem.member,
            offset=problem.offset,
        )


def _samples(folder: DatasetFolder, name: str) -> int:
    try:
        manifest = read_manifest(folder.manifest(name))
    except DamagedShardError:
        return 0
    return len({member.key for member, _ in manifest.members})


def _read_info(store: RemoteStore, folder: DatasetFolder) -> None:
    """Refuses what is no data set."""
    try:
        content = store.read("dataset.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"`dataset` must be the address of a data set, but {store.address} has no "
            "dataset.json. Check its spelling."
        ) from error
    read_info_bytes(content, f"{store.address}/dataset.json")
    folder.info_path.write_bytes(content)


def _stem(file: str, suffix: str) -> str:
    return file.removesuffix(suffix) if file.endswith(suffix) else ""
