"""Where the files of a data set lie, and the lock under which its names change."""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import pathlib
from collections.abc import Iterator

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_info import FORMAT, VERSION, DatasetInfo
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.file_layer import LOCAL_FILES, TEMPORARY, FileLayer
from jax_bridge.shards.foreign import foreign_tars
from jax_bridge.shards.info_check import check_info

PART = ".part-"
DIGEST = "sha256"
"""Entry of `dataset.json`: of the canonical JSON of its other entries."""


class DatasetFolder:
    """Paths of one data set.

    Raises:
        ValueError: if the path is an address such as `s3://...`.
    """

    def __init__(self, path: str | os.PathLike[str], files: FileLayer = LOCAL_FILES) -> None:
        if "://" in os.fspath(path):
            raise ValueError(
                f"`path` must be a local folder, but got {os.fspath(path)!r}. Addresses are not "
                "supported yet: write to or read from a local folder, and copy it."
            )
        self.path = pathlib.Path(path)
        self.files = files
        self.shards = self.path / "shards"
        self.info_path = self.path / "dataset.json"
        self.index_path = self.path / "index.parquet"
        self.errors_path = self.path / "errors.jsonl"
        self.quarantine = self.path / "quarantine"

    def tar(self, name: str) -> pathlib.Path:
        """The shard itself."""
        return self.shards / f"{name}.tar"

    def manifest(self, name: str) -> pathlib.Path:
        """Its manifest."""
        return self.shards / f"{name}.json"

    def rows(self, name: str) -> pathlib.Path:
        """Its part of the index."""
        return self.shards / f"{name}.parquet"

    def names(self, suffix: str = ".tar") -> list[str]:
        """Shards that have a file of this suffix, sorted."""
        entries = os.listdir(self.shards) if self.shards.is_dir() else []
        stems = (e.removesuffix(suffix) for e in entries if e.endswith(suffix))
        return sorted(stem for stem in stems if not stem.startswith("."))

    def whole_names(self, suffix: str) -> list[str]:
        """Shards that have a tar and a file of this suffix, sorted."""
        return sorted({*self.names()} & {*self.names(suffix)})

    def parts(self, suffix: str) -> list[pathlib.Path]:
        """Files of writers that run, or have died."""
        return sorted(self.shards.glob(f"{PART}*{suffix}"))

    def create(self) -> None:
        """Makes the folders."""
        self.shards.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while names appear or vanish; waits for whoever holds it."""
        descriptor = os.open(self.shards / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def remove_temporaries(self) -> None:
        """Removes what a crash left half written; only under the lock."""
        for folder in (self.path, self.shards):
            for path in folder.glob(f"{TEMPORARY}*"):
                self.files.unlink(path)

    def read_info(self) -> DatasetInfo:
        """Reads `dataset.json`.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if it cannot be read.
        """
        try:
            content = self.info_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            hint = foreign_tars(self.path) or "Give the folder that `vla-lens collect --out` wrote."
            raise FileNotFoundError(
                f"`path` must be a data set folder, but {self.path} has no dataset.json. {hint}"
            ) from error
        return read_info_bytes(content, str(self.info_path))

    def write_info(self, info: DatasetInfo) -> None:
        """Writes `dataset.json`."""
        self.files.write_whole(self.info_path, info_bytes(info))


def read_info_bytes(content: bytes, place: str) -> DatasetInfo:
    """Reads the content of a `dataset.json`.

    Args:
        content: its bytes.
        place: where it lies, for messages.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} cannot be read: {error}.") from error
    if not isinstance(entry, dict):
        raise ValueError(f"{place} must hold a JSON object.")
    try:
        if entry.get("format") == FORMAT and entry.get("version") == VERSION:
            check_info(entry, place)
        return DatasetInfo.from_json(entry)
    except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__} {str(error)[:200]}"
        raise ValueError(f"{place} cannot be read: {reason}.") from error


def info_bytes(info: DatasetInfo) -> bytes:
    """The content of `dataset.json`, indented for people, with a digest of all that it says."""
    entry = info.to_json()
    entry[DIGEST] = hashlib.sha256(canonical_json(entry).encode()).hexdigest()
    return json.dumps(entry, indent=1, sort_keys=True).encode() + b"\n"


@contextlib.contextmanager
def mapped(path: pathlib.Path) -> Iterator[mmap.mmap]:
    """A file's bytes, without reading them before they are asked for.

    Raises:
        DamagedShardError: if the file is empty or not there.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (ValueError, FileNotFoundError) as error:
        reason = "the file is missing" if isinstance(error, FileNotFoundError) else "it is empty"
        raise DamagedShardError(f"{reason}.", shard=path.stem, offset=0) from error
    try:
        yield content
    finally:
        content.close()
