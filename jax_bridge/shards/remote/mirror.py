"""Small files of an address on this machine: brought once, and again when they change there."""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping

from jax_bridge.shards.file_layer import LOCAL_FILES, TEMPORARY
from jax_bridge.shards.remote.intervals import coalesce, ranges
from jax_bridge.shards.remote.ranged_get import PIECE
from jax_bridge.shards.remote.store import ObjectInfo, RemoteStore

_log = logging.getLogger(__name__)
PARALLEL = 16
"""Small files that are brought at one time."""
OLD = 24 * 3600
"""Seconds after which a file of an earlier stamp is removed; until then a worker may open it."""
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_DIGESTS = "digests.json"


class Mirror:
    """Files named after their stamps, so that one of another stamp is another file.

    Args:
        store: where they come from.
        folder: where they are kept; where that cannot be written, a temporary folder.
    """

    def __init__(self, store: RemoteStore, folder: pathlib.Path) -> None:
        self._store = store
        self._temporary: weakref.finalize[..., Mirror] | None = None
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, probe = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
            os.close(descriptor)
            pathlib.Path(probe).unlink()
        except OSError as error:
            self._use_temporary(error)

    def file(self, name: str, about: ObjectInfo) -> pathlib.Path:
        """An object as a file.

        Raises:
            ChangedObjectError: if the object has another stamp by now.
            OSError: if it cannot be read.
        """
        target = self._place(name, about.stamp)
        if target.exists() and target.stat().st_size == about.size:
            return target
        try:
            self._bring(name, about, target)
        except OSError as error:
            if error.errno not in _REFUSED or self._temporary is not None:
                raise
            self._use_temporary(error)
            target = self._place(name, about.stamp)
            self._bring(name, about, target)
        self._remove_older(target)
        return target

    def keep(self, name: str, stamp: str, content: bytes) -> pathlib.Path:
        """Keeps what was made here under a name and stamp."""
        target = self._place(name, stamp)
        LOCAL_FILES.write_whole(target, content)
        self._remove_older(target)
        return target

    def kept(self, name: str, stamp: str) -> pathlib.Path | None:
        """What `keep` put there."""
        target = self._place(name, stamp)
        return target if target.exists() else None

    def digests(self, objects: Mapping[str, ObjectInfo]) -> dict[str, str]:
        """Sha256 of some objects; their contents are not kept, only that."""
        path = self.folder / _DIGESTS
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(path.read_bytes())
        new = {name: about for name, about in objects.items() if _key(name, about) not in known}

        def digest(name: str) -> str:
            return hashlib.sha256(self._store.read(name)).hexdigest()

        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            found = dict(zip(new, pool.map(digest, new), strict=True))
        if found:
            all_of_them = {**known, **{_key(n, new[n]): value for n, value in found.items()}}
            with contextlib.suppress(OSError):
                LOCAL_FILES.write_whole(path, json.dumps(all_of_them).encode())
        return {n: found.get(n) or known[_key(n, about)] for n, about in objects.items()}

    def _place(self, name: str, stamp: str) -> pathlib.Path:
        digest = hashlib.sha256(stamp.encode()).hexdigest()[:16]
        return self.folder / f"{name.replace('/', '.')}-{digest}"

    def _bring(self, name: str, about: ObjectInfo, target: pathlib.Path) -> None:
        temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        descriptor = LOCAL_FILES.create(temporary)
        try:
            pieces = coalesce(ranges([0], [about.size]), PIECE)

            def write(start: int, piece: bytes) -> None:
                LOCAL_FILES.write_at(descriptor, [piece], start)

            self._store.fetch(name, pieces[pieces[:, 1] > 0], write, stamp=about.stamp)
            LOCAL_FILES.sync(descriptor)
            LOCAL_FILES.rename(temporary, target)
        finally:
            os.close(descriptor)
            LOCAL_FILES.unlink(temporary)

    def _remove_older(self, target: pathlib.Path) -> None:
        stem = target.name.rpartition("-")[0]
        before = time.time() - OLD
        for path in self.folder.glob(f"{stem}-????????????????"):
            with contextlib.suppress(OSError):
                if path != target and path.stat().st_mtime < before:
                    path.unlink()

    def _use_temporary(self, error: OSError) -> None:
        _log.warning(
            "The cache %s cannot be written (%s): what is small is kept in a temporary folder. "
            "Make room there, or let VLA_LENS_CACHE name another folder.",
            *(self.folder, error.strerror or error),
        )
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vla-lens-mirror-"))
        self._temporary = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def _key(name: str, about: ObjectInfo) -> str:
    return f"{name} {about.stamp}"
