"""Where shards wait on this machine until they are uploaded, and the locks beside them."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import uuid
from collections.abc import Collection, Iterator, Sequence

from jax_bridge.shards.cache_folder import cache_folder
from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.commit import copy_episodes, finish_commit
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.episode_record import EpisodeRecord
from jax_bridge.shards.evidence import gather, whole_episodes
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.sample_key import EpisodeId, shard_name


def staging_folder(address: str) -> pathlib.Path:
    """The folder of an address, below the cache folder."""
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()
    return cache_folder() / "staging" / digest[:32]


class StagedShards:
    """Committed shards of a local folder, each of which leaves it when it has been uploaded.

    Names change only under the folder's lock, as everywhere; who uploads holds `turn`.
    """

    def __init__(self, folder: DatasetFolder) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Shards that are complete: tar, manifest and rows."""
        folder = self.folder
        return sorted({*folder.whole_names(".json")} & {*folder.names(".parquet")})

    def episodes(self, name: str) -> frozenset[EpisodeId]:
        """What a shard holds."""
        return frozenset(read_manifest(self.folder.manifest(name)).episodes)

    @property
    def empty(self) -> bool:
        """Whether no finished episode waits here, and nobody writes."""
        return not (self.folder.names() or self.folder.parts(".jsonl") or self.folder.parts(".tar"))

    @property
    def machine(self) -> str:
        """A name that no other staging folder has, made once."""
        folder = self.folder
        folder.create()
        path = folder.path / "machine"
        with folder.lock():
            if not path.exists():
                folder.files.write_whole(path, uuid.uuid4().hex.encode())
            return path.read_text()

    @contextlib.contextmanager
    def turn(self, *, wait: bool = True) -> Iterator[bool]:
        """Held while one shard is uploaded, against other processes of this machine.

        Args:
            wait: until they have had theirs; otherwise yields False where it is not free.
        """
        path = self.folder.shards / ".upload"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def prepare(self, info: DatasetInfo, *, fresh: bool) -> None:
        """Forgets an earlier run that has nothing waiting here.

        Args:
            info: settings of the run that begins.
            fresh: whether nothing is at the address yet, so that no episode can have failed there.

        Raises:
            ValueError: if shards of other settings wait here to be uploaded.
        """
        folder = self.folder
        folder.create()
        with folder.lock():
            if fresh and self.empty:
                folder.files.unlink(folder.errors_path)
            if not folder.info_path.exists() or _is_same(info, folder):
                return
            if not self.empty:
                raise ValueError(
                    f"`staging` must hold shards of these settings, but {folder.path} holds some "
                    "of others that were never uploaded. Go on with the old settings first, "
                    "choose another --staging, or remove that folder."
                )
            for path in (folder.index_path, folder.errors_path, folder.info_path):
                folder.files.unlink(path)

    def remove(self, name: str) -> None:
        """Removes a shard: the tar last, so that a crash in between leaves one to look at."""
        folder = self.folder
        with folder.lock():
            for path in (folder.manifest(name), folder.rows(name), folder.tar(name)):
                folder.files.unlink(path)

    def recut(self, name: str, kept: Collection[EpisodeId], taken: Collection[str]) -> str:
        """Puts a shard of some of the episodes in a shard's place, under a name that is free.

        Args:
            name: of the old shard.
            kept: which of its episodes stay.
            taken: names that others have.

        Returns:
            The new name.

        Raises:
            DamagedShardError: if the episodes cannot be read any more, or no name is free.
        """
        folder = self.folder
        with folder.lock():
            records = [record for record in self._records(name) if record.id in kept]
            if {record.id for record in records} != set(kept):
                raise DamagedShardError(
                    f"its tar is damaged. Run `vla-lens shards repair {folder.path}`.", shard=name
                )
            new = _free_name(folder, records, taken)
            if new == name:
                raise DamagedShardError(
                    "the tar at the address has its name, but not its content. Remove that tar.",
                    shard=name,
                )
            if new not in folder.names():
                self._commit(name, records, new)
        self.remove(name)
        return new

    def _records(self, name: str) -> list[EpisodeRecord]:
        folder = self.folder
        with mapped(folder.tar(name)) as tar:
            evidence = gather(
                name, manifest=folder.manifest(name), rows=folder.rows(name), index=None, tar=tar
            )
            return whole_episodes(tar, name, evidence)

    def _commit(self, old: str, records: Sequence[EpisodeRecord], new: str) -> None:
        folder = self.folder
        with folder.tar(old).open("rb") as file:
            part = copy_episodes(folder, file.fileno(), records)
        try:
            part.seal()
            part.rename(new, folder.tar(new))
            finish_commit(folder, new, part.episodes)
            part.remove()
        finally:
            part.close()


def _is_same(info: DatasetInfo, folder: DatasetFolder) -> bool:
    try:
        info.require_same(folder.read_info(), folder.path)
    except ValueError:
        return False
    return True


def _free_name(
    folder: DatasetFolder, records: Sequence[EpisodeRecord], taken: Collection[str]
) -> str:
    """By the episodes, or by their content as well; the latter can only be this very shard's."""
    name = shard_name([record.id for record in records])
    if name not in taken and not folder.tar(name).exists():
        return name
    start, moved = 0, list[EpisodeRecord]()
    for record in records:
        moved.append(record.moved(start))
        start = moved[-1].end
    content = canonical_json([record.to_json() for record in moved]).encode()
    return f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"
