"""`RemoteEpisodeWriter`: whole episodes into shards at an address, by way of a staging folder."""

import logging
import os
import types
from collections.abc import Callable

from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.failures import ShardWriteError
from jax_bridge.shards.file_layer import LOCAL_FILES, FileLayer
from jax_bridge.shards.part import Part
from jax_bridge.shards.remote.retry import Retries
from jax_bridge.shards.remote.staging import staging_folder
from jax_bridge.shards.remote.store import RemoteStore
from jax_bridge.shards.remote.upload import ShardUploads
from jax_bridge.shards.remote.upload_thread import UploadThread
from jax_bridge.shards.sample_members import ImageFormat
from jax_bridge.shards.writer import EpisodeWriter, ShardLimits

WAITING = 2
"""Finished shards that may wait on this machine; with more, the writer waits."""
PATIENT = Retries(attempts=14, first_wait=0.5, longest_wait=60.0)
"""Of uploads beside a run that took hours: some eight minutes of a server that is away."""
_log = logging.getLogger(__name__)


class RemoteEpisodeWriter(EpisodeWriter):
    """Writes a data set at an address, or goes on writing one.

    Episodes are written to a staging folder as to any other; each committed shard is uploaded by
    one thread while the next one is written, and then removed here. The disk of this machine holds
    `WAITING` shards, the one that is being uploaded, and the one that is being written.

    Args:
        address: of the data set.
        info: how every sample is made; must be that of the address, if it has one.
        limits: when to start a new shard.
        images: how camera images are stored.
        files: the local file layer; tests replace it.
        staging: the local folder; by default one below the cache folder, by the address.
        store: the objects at the address; tests replace it.
        on_wait: told how many shards wait, again and again, while nothing else happens.

    Raises:
        FingerprintError: if the address holds another data set.
        OSError: if the address cannot be listed, read or written.
        ShardWriteError: if the staging folder cannot be written.
    """

    def __init__(
        self,
        address: str,
        info: DatasetInfo,
        limits: ShardLimits | None = None,
        images: ImageFormat | None = None,
        files: FileLayer = LOCAL_FILES,
        *,
        staging: str | os.PathLike[str] | None = None,
        store: RemoteStore | None = None,
        on_wait: Callable[[int], None] | None = None,
    ) -> None:
        folder = DatasetFolder(staging or staging_folder(address), files)
        self._on_wait = on_wait
        patient = store is None
        store = store or RemoteStore(address)
        self._uploads = ShardUploads(store, folder)
        self._thread: UploadThread | None = None
        self._told = False
        try:
            there = self._uploads.begin(info)
            super().__init__(folder.path, info, limits, images, files)
        except BaseException:
            self._uploads.close()
            raise
        self.committed |= there
        self.errors -= self.committed
        if patient:
            store.retries = PATIENT
        self._thread = UploadThread(self._uploads.upload_all)
        self._thread.poke()

    def close(self) -> None:
        """Commits the shard at hand, uploads everything and writes the index.

        Raises:
            ShardWriteError: if the disk or the address refuses; what is finished is then uploaded
                by the next writer.
        """
        if self._closed:
            return
        thread = self._thread
        assert thread is not None
        try:
            super().close()
            thread.poke()
            self._wait(lambda: thread.idle)
            self._raise_failure()
            if not self._told:
                self._finish()
        finally:
            self._uploads.stop.set()
            thread.end()
            self._uploads.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if kind is KeyboardInterrupt and not self._closed and not self._uploads.staged.empty:
            _log.warning(
                "Uploading what is finished; Ctrl-C again leaves it in %s for the next run.",
                self._folder.path,
            )
        super().__exit__(kind, error, trace)

    def _open_part(self) -> Part:
        self._wait(lambda: len(self._uploads.staged.names()) <= WAITING)
        self._raise_failure()
        return super()._open_part()

    def _commit(self) -> None:
        super()._commit()
        if self._thread is not None:
            self._thread.poke()

    def _write_index(self) -> None:
        """Not here: the index is made of what is at the address."""

    def _wait(self, enough: Callable[[], bool]) -> None:
        assert self._thread is not None
        if not enough():
            self._thread.wait(enough, self._tell)
            self._tell()

    def _tell(self) -> None:
        if self._on_wait is not None:
            self._on_wait(len(self._uploads.staged.names()))

    def _finish(self) -> None:
        try:
            self._uploads.finish()
        except OSError as error:
            raise self._upload_error(error) from error

    def _raise_failure(self) -> None:
        assert self._thread is not None
        failure = self._thread.failure
        if failure is None or self._told:
            return
        self._told = True
        if isinstance(failure, OSError):
            raise self._upload_error(failure) from failure
        raise failure

    def _upload_error(self, failure: OSError) -> ShardWriteError:
        wrapped = ShardWriteError(
            f"{str(failure).rstrip('.')}. Finished episodes that are not at "
            f"{self._uploads.address} yet are kept in {self._folder.path}; the same command "
            "uploads them and goes on."
        )
        wrapped.errno = failure.errno
        return wrapped
