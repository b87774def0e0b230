"""Turning a part into a shard: sealed, named, given manifest and index rows, in that order."""

import hashlib
import os
from collections.abc import Sequence

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.episode_record import EpisodeRecord
from jax_bridge.shards.index import write_rows
from jax_bridge.shards.manifest import manifest_from_records, read_manifest
from jax_bridge.shards.part import Part
from jax_bridge.shards.sample_key import EpisodeId, shard_name

COPY_BYTES = 1 << 24


class CommittedEpisodes:
    """Which episodes stand in shards; reads each manifest once."""

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder = folder
        self._seen: dict[str, frozenset[EpisodeId]] = {}

    def refresh(self) -> set[EpisodeId]:
        """All episodes in tars with a manifest, those of other writers included."""
        names = self._folder.whole_names(".json")
        for name in names:
            if name not in self._seen:
                manifest = read_manifest(self._folder.manifest(name))
                self._seen[name] = frozenset(manifest.episodes)
        # A shard that was seen may have gone into quarantine.
        return {episode for name in names for episode in self._seen[name]}


def commit_part(folder: DatasetFolder, part: Part, committed: CommittedEpisodes) -> str | None:
    """Commits what a part's journal holds and closes it; call it under the folder's lock.

    Episodes that another writer committed in the meantime are left out.

    Returns:
        The shard's name; None where nothing was left to commit.
    """
    others = committed.refresh()
    fresh = [record for record in part.episodes if record.id not in others]
    if not fresh:
        part.remove()
        part.close()
        return None
    if len(fresh) < len(part.episodes):
        part = _without_doubles(folder, part, fresh)
    try:
        part.seal()
        name = _free_name(folder, part.episodes)
        # Somebody may have removed a bad tar of this name, but not what described it.
        folder.files.unlink(folder.manifest(name))
        folder.files.unlink(folder.rows(name))
        part.rename(name, folder.tar(name))
        finish_commit(folder, name, part.episodes)
        part.remove()
    finally:
        part.close()
    return name


def finish_commit(folder: DatasetFolder, name: str, records: Sequence[EpisodeRecord]) -> None:
    """Writes manifest and index rows of a tar that has its name."""
    with mapped(folder.tar(name)) as tar:
        content = manifest_from_records(tar, name, records).to_bytes()
    folder.files.write_whole(folder.manifest(name), content)
    write_rows(folder, name)


def _free_name(folder: DatasetFolder, records: Sequence[EpisodeRecord]) -> str:
    name = shard_name([record.id for record in records])
    quarantined = folder.quarantine / folder.tar(name).name
    if not folder.tar(name).exists() and not quarantined.exists():
        return name
    # Another shard spans the same first and last episode, as two workers that take turns do.
    content = canonical_json([record.to_json() for record in records]).encode()
    return f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"


def _without_doubles(folder: DatasetFolder, part: Part, kept: Sequence[EpisodeRecord]) -> Part:
    smaller = copy_episodes(folder, part.descriptor, kept)
    part.remove()
    part.close()
    return smaller


def copy_episodes(folder: DatasetFolder, descriptor: int, records: Sequence[EpisodeRecord]) -> Part:
    """A new part of some episodes of an open tar."""
    copy = Part(folder)
    for record in records:
        start = copy.size
        for position in range(record.start, record.end, COPY_BYTES):
            count = min(COPY_BYTES, record.end - position)
            piece = os.pread(descriptor, count, position)
            copy.size = folder.files.write_at(copy.descriptor, [piece], copy.size)
        copy.finish_episode(record.moved(start))
    return copy
