"""Where a data set's bytes come from: a folder of this machine, or an address."""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.errors_file import read_errors
from jax_bridge.shards.local_read_ahead import LocalReadAhead
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.places import Places
from jax_bridge.shards.projection import Projection
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.shard_map import Shard, ShardMap, ShardMaps


@runtime_checkable
class Ahead(Protocol):
    """Fetches what is read before it is."""

    def in_time(
        self,
        suffix: str,
        name: str,
        rows: Int64[np.ndarray, " n"],
        groups: Sequence[Int64[np.ndarray, " _"]],
        projection: Projection,
    ) -> Iterable[Int64[np.ndarray, " _"]]:
        """Gives places of rows by shard, each when its bytes are there.

        Raises:
            OSError: if a server cannot be read.
        """
        ...

    def later(self, rows: Int64[np.ndarray, " n"]) -> None:
        """Fetches, in the background, what was last read of other rows; a hint, no promise."""
        ...


@runtime_checkable
class Source(Protocol):
    """Opens shards and checks them; can be sent to other processes."""

    max_open: int
    """How many shards may be open at one time."""

    @property
    def path(self) -> pathlib.Path | str:
        """The folder, or the address as text."""
        ...

    def read_ahead(self, maps: ShardMaps, places: Places) -> "Ahead | None":
        """What fetches bytes before they are needed; None where that would gain nothing."""
        ...

    def open(self, name: str) -> Shard:
        """A shard.

        Raises:
            DamagedShardError: if its tar is missing or empty.
        """
        ...

    def check(self, shard: Any, places: Places) -> None:
        """Compares a shard with what should be there.

        Raises:
            DamagedShardError: if they disagree.
        """
        ...

    def errors(self) -> set[EpisodeId]:
        """Episodes that `errors.jsonl` names."""
        ...

    def content_digest(self) -> str:
        """A digest of the shards' manifests, which hold the digest of every member."""
        ...


class LocalSource:
    """A folder."""

    max_open = 256

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder = folder

    @property
    def path(self) -> pathlib.Path:
        """The folder."""
        return self._folder.path

    def read_ahead(self, maps: ShardMaps, places: Places) -> LocalReadAhead:
        """Asks the disk for the next rows while these are copied."""
        return LocalReadAhead(maps, places)

    def open(self, name: str) -> ShardMap:
        """Maps the tar."""
        return ShardMap(self._folder.tar(name))

    def check(self, shard: Shard, places: Places) -> None:
        """Compares size and offsets with the manifest."""
        places.check_manifest(shard, read_manifest(self._folder.manifest(shard.name)))

    def errors(self) -> set[EpisodeId]:
        """Episodes that `errors.jsonl` names."""
        return read_errors(self._folder)

    def content_digest(self) -> str:
        """A digest of the shards' manifests."""
        names = self._folder.names(".json")
        return manifests_digest([self._folder.manifest(name).read_bytes() for name in names])


def manifests_digest(manifests: list[bytes]) -> str:
    """A digest of manifests in the order of the shards' names."""
    return digest_of_digests([hashlib.sha256(content).hexdigest() for content in manifests])


def digest_of_digests(digests: list[str]) -> str:
    """A digest of digests."""
    together = hashlib.sha256()
    for digest in digests:
        together.update(bytes.fromhex(digest))
    return together.hexdigest()
