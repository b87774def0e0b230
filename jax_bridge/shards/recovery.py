"""What a writer does first: it brings to an end what dead writers left."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator

from jax_bridge.shards.commit import CommittedEpisodes, commit_part, finish_commit
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.episode_record import EpisodeRecord
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import write_manifest, write_rows
from jax_bridge.shards.journal import Journal, read_journal
from jax_bridge.shards.manifest import digest_range
from jax_bridge.shards.part import Part
from jax_bridge.shards.tar_layout import Readable, scan_members

_log = logging.getLogger(__name__)


def recover(folder: DatasetFolder, committed: CommittedEpisodes) -> None:
    """Commits the journalled episodes of dead writers; call it under the folder's lock.

    Parts that a living writer holds are not touched.
    """
    folder.remove_temporaries()
    finish_named(folder)
    _complete_named(folder)
    for path in folder.parts(".tar"):
        _recover_part(folder, path, committed)


def finish_named(folder: DatasetFolder) -> None:
    """Ends the commits of tars that have their names already, out of their journals."""
    for path in folder.parts(".jsonl"):
        if not path.with_suffix(".tar").exists():
            _finish_named(folder, path)


def _finish_named(folder: DatasetFolder, path: pathlib.Path) -> None:
    """A tar got its name, but perhaps no manifest: its journal still has the digests."""
    journal = read_journal(path)
    name = journal.commit
    if name and folder.tar(name).exists() and not folder.manifest(name).exists():
        with mapped(folder.tar(name)) as tar:
            whole = _whole_episodes(tar, journal)
        if len(whole) < len(journal.episodes):
            _log.warning("Shard %s is damaged. Run `vla-lens shards repair`.", name)
        # The manifest says what the tar should be, damaged or not.
        with _left_as_it_is():
            finish_commit(folder, name, journal.episodes)
    folder.files.unlink(path)


def _complete_named(folder: DatasetFolder) -> None:
    manifests, rows = set(folder.names(".json")), set(folder.names(".parquet"))
    for name in folder.names():
        with _left_as_it_is():
            if name not in manifests:
                write_manifest(folder, name)
            if name not in rows:
                write_rows(folder, name)


@contextlib.contextmanager
def _left_as_it_is() -> Iterator[None]:
    """One bad shard keeps nobody from the others."""
    try:
        yield
    except DamagedShardError as error:
        _log.warning("Left as it is: %s", error)


def _recover_part(folder: DatasetFolder, path: pathlib.Path, committed: CommittedEpisodes) -> None:
    try:
        part = Part(folder, path)
    except BlockingIOError:
        return
    journal = read_journal(part.journal_path)
    if path.stat().st_size:
        with mapped(path) as tar:
            part.episodes = _whole_episodes(tar, journal)
    part.cut(part.episodes[-1].end if part.episodes else 0)
    lost = len(journal.episodes) - len(part.episodes)
    if lost:
        _log.warning("%d episodes of an interrupted run were damaged and are dropped.", lost)
    name = commit_part(folder, part, committed)
    if name:
        _log.info("Recovered %d episodes into shard %s.", len(part.episodes), name)


def _whole_episodes(tar: Readable, journal: Journal) -> list[EpisodeRecord]:
    """Journalled episodes whose bytes are what the journal says, up to the first that is not."""
    whole: list[EpisodeRecord] = []
    position = 0
    for record in journal.episodes:
        if record.start != position or not _is_whole(tar, record):
            break
        whole.append(record)
        position = record.end
    return whole


def _is_whole(tar: Readable, record: EpisodeRecord) -> bool:
    if record.end > len(tar):
        return False
    episode = _Window(tar, record.start, record.end)
    try:
        members = list(scan_members(episode, "part", stop=len(episode)))
    except DamagedShardError:
        return False
    at = [m._replace(offset=m.offset + record.start) for m in members]
    return at == [member for member, _ in record.members] and all(
        digest_range(tar, member.offset, member.offset + member.size) == digest
        for member, digest in record.members
    )


class _Window:
    """Some bytes of a file, counted from their own start."""

    def __init__(self, tar: Readable, start: int, end: int) -> None:
        self._tar, self._start, self._end = tar, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, item: slice) -> bytes:
        start, stop, _ = item.indices(len(self))
        return self._tar[self._start + start : self._start + stop]
