"""Bringing staged shards to their address: tar, rows, and the manifest last."""

import contextlib
import json
import threading
from collections.abc import Collection

from jax_bridge.shards.dataset_folder import DatasetFolder, info_bytes, read_info_bytes
from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.remote.claims import Claims
from jax_bridge.shards.remote.download import is_equal
from jax_bridge.shards.remote.remote_rows import RemoteRows
from jax_bridge.shards.remote.staging import StagedShards
from jax_bridge.shards.remote.store import RemoteStore
from jax_bridge.shards.sample_key import EpisodeId

INFO, ERRORS = "dataset.json", "errors.jsonl"


class ShardUploads:
    """Uploads the shards of a staging folder, each whole or invisible, and none twice.

    An object that is there is never replaced by one of other content. A shard leaves the staging
    folder after its manifest has arrived, so one that was stopped anywhere is uploaded again, and
    what has arrived of it is compared instead of sent.
    """

    def __init__(self, store: RemoteStore, staging: DatasetFolder) -> None:
        self.address = store.address
        self.staged = StagedShards(staging)
        self.stop = threading.Event()
        """Ends `upload_all` after the shard at hand."""
        self._store = store
        self._rows = RemoteRows(store)
        self._claims = Claims(store, self.staged.machine)
        self._sent_errors: set[bytes] | None = None

    def begin(self, info: DatasetInfo) -> set[EpisodeId]:
        """Looks at what is there, and writes `dataset.json` where there is none.

        Returns:
            The episodes that are there.

        Raises:
            FingerprintError: if the address holds another data set.
            ValueError: if shards of another data set wait in the staging folder.
            OSError: if the address cannot be listed, read or written.
        """
        self._rows.refresh()
        fresh = not self._agrees(info)
        self.staged.prepare(info, fresh=fresh)
        if fresh:
            self._store.write(INFO, info_bytes(info))
            # Somebody else may have written theirs at the same time.
            self._agrees(info)
        with self.staged.turn(wait=False) as free:
            if free:
                self._claims.withdraw()
        self._merge_errors()
        return self._rows.episodes

    def upload_all(self) -> None:
        """Uploads every staged shard that is complete, and the episodes that failed.

        Raises:
            OSError: if the address refuses; what is staged stays so.
            DamagedShardError: if a staged shard, or one that is there, cannot be read.
        """
        for name in self.staged.names():
            if self.stop.is_set():
                return
            with self.staged.turn():
                # Another process of this machine may have uploaded it meanwhile.
                if name in self.staged.names():
                    self._publish(name)
        self._merge_errors()

    def finish(self) -> None:
        """Writes the index of all that is there.

        Raises:
            OSError: if the address refuses.
            DamagedShardError: if a sample stands in two shards.
        """
        self._rows.refresh()
        self._rows.write_index()

    def close(self) -> None:
        """Removes temporary files."""
        self._rows.close()

    def _agrees(self, info: DatasetInfo) -> bool:
        """False where there is no `dataset.json`; refuses another one."""
        try:
            content = self._store.read(INFO)
        except FileNotFoundError:
            return False
        info.require_same(read_info_bytes(content, f"{self.address}/{INFO}"), self.address)
        return True

    def _publish(self, name: str) -> None:
        self._rows.refresh()
        mine = self.staged.episodes(name)
        others = (other for other in self.staged.names() if other != name)
        fresh = mine - self._rows.episodes - {e for o in others for e in self.staged.episodes(o)}
        if not fresh:
            self.staged.remove(name)
            return
        if fresh != mine or not self._put_tar(name):
            self._publish(self.staged.recut(name, fresh, self._rows.listed))
            return
        folder = self.staged.folder
        self._store.upload(folder.rows(name), f"shards/{name}.parquet")
        shown = self._claims.publish(
            mine,
            look=lambda files: self._none_there(mine, files),
            show=lambda: self._store.upload(folder.manifest(name), f"shards/{name}.json"),
        )
        if shown:
            self.staged.remove(name)
        else:  # another machine was faster
            self._publish(name)

    def _none_there(self, episodes: frozenset[EpisodeId], files: Collection[str]) -> bool:
        self._rows.refresh(files)
        return not episodes & self._rows.episodes

    def _put_tar(self, name: str) -> bool:
        """Uploads the tar; False where another one has its name."""
        local, remote = self.staged.folder.tar(name), f"shards/{name}.tar"
        if name not in self._rows.listed:
            try:
                self._store.upload(local, remote, new=True)
            except FileExistsError:
                self._rows.refresh()
            else:
                return True
        return is_equal(self._store, remote, local)

    def _merge_errors(self) -> None:
        """Joins the lines of `errors.jsonl` here and there; sends them where some are new."""
        here = self._failed_here()
        if self._sent_errors is not None and self._sent_errors >= set(here):
            return
        there: list[bytes] = []
        with contextlib.suppress(FileNotFoundError):
            there = _lines(self._store.read(ERRORS))
        union = list(dict.fromkeys([*there, *here]))
        if len(union) > len(there):
            self._store.write(ERRORS, _text(union))
        folder = self.staged.folder
        with folder.lock():
            # Nobody waits for the lock during an upload, so some may have been added.
            lines = list(dict.fromkeys([*union, *self._failed_here()]))
            if lines:
                folder.files.write_whole(folder.errors_path, _text(lines))
        self._sent_errors = set(union)

    def _failed_here(self) -> list[bytes]:
        path = self.staged.folder.errors_path
        return _lines(path.read_bytes()) if path.exists() else []


def _text(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _lines(content: bytes) -> list[bytes]:
    """Whole lines; a crash may have cut the last one."""
    return [line for line in content.split(b"\n") if _is_whole(line)]


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
