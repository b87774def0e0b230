"""A part: the private files of one writer, until they become a shard."""

import fcntl
import os
import pathlib
import uuid
from collections.abc import Sequence

from jax_bridge.shards.dataset_folder import PART, DatasetFolder
from jax_bridge.shards.early_writeback import EarlyWriteback
from jax_bridge.shards.episode_record import EpisodeRecord
from jax_bridge.shards.journal import commit_line, episode_line, read_journal
from jax_bridge.shards.tar_layout import END, Member, padded, tar_header


class Part:
    """`shards/.part-{uuid}.tar`, locked as long as its writer lives, and its journal.

    Until it is sealed nothing waits for the disk: a killed process loses no written byte. Should
    the power fail, the journal may name an episode whose bytes were lost: recovery compares
    digests and drops it.

    Construct it under the folder's lock, so that recovery never sees a part between its creation
    and its locking.
    """

    def __init__(self, folder: DatasetFolder, path: pathlib.Path | None = None) -> None:
        self._files = folder.files
        self.tar_path = path or folder.shards / f"{PART}{uuid.uuid4().hex}.tar"
        self.journal_path = self.tar_path.with_suffix(".jsonl")
        self.episodes: list[EpisodeRecord] = []
        self.size = 0
        if path is None:
            self.descriptor = self._files.create(self.tar_path)
        else:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._journal: int | None = None
        self._journal_size = 0
        self._writeback = EarlyWriteback(self._files, self.descriptor)
        self._closed = False
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.descriptor)
            raise

    def append(self, contents: Sequence[tuple[str, str, bytes]]) -> list[Member]:
        """Writes members (key, suffix, content) one after the other."""
        members: list[Member] = []
        pieces: list[bytes] = []
        position = self.size
        for key, suffix, content in contents:
            member = Member(key, suffix, position + 512, len(content))
            pieces += [
                tar_header(member.name, len(content)),
                content,
                bytes(padded(len(content)) - len(content)),
            ]
            members.append(member)
            position = member.end
        self.size = self._files.write_at(self.descriptor, pieces, self.size)
        self._writeback.advance(self.size)
        return members

    def patch(self, member: Member, content: bytes) -> None:
        """Replaces a member's content by one of the same size."""
        assert len(content) == member.size
        self._files.write_at(self.descriptor, [content], member.offset)

    def finish_episode(self, record: EpisodeRecord) -> None:
        """Writes an episode's line into the journal; from now on a crash does not lose it."""
        self._write_journal(episode_line(record))
        self.episodes.append(record)

    def cut(self, size: int) -> None:
        """Drops what follows; if the disk refuses, `seal` or recovery cuts it."""
        self.size = size
        self._files.truncate(self.descriptor, size)

    def send(self) -> None:
        """Brings everything to the disk."""
        self._files.sync(self.descriptor)

    def seal(self) -> None:
        """Ends the tar and brings it to the disk."""
        self._files.write_at(self.descriptor, [END], self.size)
        self._files.truncate(self.descriptor, self.size + len(END))
        self._files.sync(self.descriptor)

    def rename(self, name: str, target: pathlib.Path) -> None:
        """Gives the sealed tar its name, which must be free; the journal says so first."""
        assert not target.exists()
        self._write_journal(commit_line(name))
        self._files.rename(self.tar_path, target)
        self._files.sync_folder(target.parent)

    def close(self) -> None:
        """Lets go of the files, and so of the lock; a second call does nothing."""
        self._writeback.close()
        descriptors = () if self._closed else (self.descriptor, self._journal)
        self._closed = True
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)

    def remove(self) -> None:
        """Removes both files' private names: the journal last, it explains the tar."""
        self._files.unlink(self.tar_path)
        self._files.unlink(self.journal_path)

    def _write_journal(self, line: bytes) -> None:
        if self._journal is None:
            if self.journal_path.exists():
                self._journal_size = read_journal(self.journal_path).size
                self._journal = os.open(self.journal_path, os.O_RDWR | os.O_CLOEXEC)
                self._files.truncate(self._journal, self._journal_size)
            else:
                self._journal = self._files.create(self.journal_path)
        try:
            end = self._files.write_at(self._journal, [line], self._journal_size)
        except OSError:
            self._files.truncate(self._journal, self._journal_size)
            raise
        self._journal_size = end
