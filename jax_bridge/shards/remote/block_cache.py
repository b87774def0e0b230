"""The cache of remote bytes: bounded, shared by processes, and never in the way.

Where its disk is full or cannot be written, bytes are held in memory for as long as they are
needed, and a warning says so.
"""

import collections
import contextlib
import hashlib
import logging
import os
import pathlib
import re
import threading

from jax_bridge.shards.remote.intervals import Ranges
from jax_bridge.shards.remote.kept_object import (
    CacheDiskError,
    Fetch,
    KeptFile,
    KeptObject,
    list_path,
)

_log = logging.getLogger(__name__)
VARIABLE = "VLA_LENS_CACHE_BYTES"
DEFAULT_BYTES = 8 * 2**30
MEMORY_BYTES = 256 * 2**20
"""What is held in memory where the disk gives nothing."""
SLACK = 1 / 32
"""Share of the limit that one process fills before it looks at what all have filled."""
KEPT = 0.9
"""Share of the limit that an eviction leaves."""
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class BlockCache:
    """Objects by name and stamp; can be used from several threads and processes.

    Args:
        folder: where the files lie. The limit is that of all `*/blocks` folders beside it.
        limit: bytes on the disk, about; 0 keeps nothing there. None reads $VLA_LENS_CACHE_BYTES.

    Raises:
        ValueError: if the variable is no size.
    """

    def __init__(self, folder: pathlib.Path, limit: int | None = None) -> None:
        self.limit = limit_from_environment() if limit is None else limit
        self._folder = folder
        self._lock = threading.Lock()
        self._unseen = self.limit
        """Bytes that this process has filled since it looked at all; at first, it looks."""
        self._memory: collections.OrderedDict[str, KeptObject] = collections.OrderedDict()
        self._writes = self.limit > 0

    def filled(
        self, kept: KeptObject | None, place: "Place", need: Ranges, fetch: Fetch
    ) -> KeptObject:
        """An object's bytes, of which these ranges are there.

        Args:
            kept: what the last call gave.
            place: which object.
            need: ranges.
            fetch: reads what is missing.

        Raises:
            OSError: what `fetch` raises.
        """
        try:
            file = self._file(kept, place)
            if file is not None and (self._writes or file.has(need)):
                before = file.held
                file.fill(need, fetch)
                self._account(file.held - before)
                return file
        except CacheDiskError as error:
            self._give_up(error)
        return self._in_memory(place, need, fetch)

    def _file(self, kept: KeptObject | None, place: "Place") -> KeptFile | None:
        path = self._folder / f"{place.file_name}.bytes"
        if isinstance(kept, KeptFile) and kept.path == path and not kept.gone:
            return kept
        return KeptFile(path, place.size) if self._writes or path.exists() else None

    def _in_memory(self, place: "Place", need: Ranges, fetch: Fetch) -> KeptObject:
        with self._lock:
            kept = self._memory.pop(place.file_name, None) or KeptObject(place.size)
            self._memory[place.file_name] = kept
        kept.fill(need, fetch)
        with self._lock:
            while len(self._memory) > 1 and self._held() > MEMORY_BYTES:
                self._memory.popitem(last=False)
            if self._held() > MEMORY_BYTES:
                self._memory.clear()
        return kept

    def _held(self) -> int:
        return sum(kept.held for kept in self._memory.values())

    def _give_up(self, error: CacheDiskError) -> None:
        with self._lock:
            if not self._writes:
                return
            self._writes = False
        _log.warning(
            "The cache %s cannot be written (%s): what is read is held in memory and moved again "
            "when it is needed again. Make room there, or let VLA_LENS_CACHE name another folder.",
            *(self._folder, error),
        )

    def _account(self, count: int) -> None:
        with self._lock:
            self._unseen += count
            if self._unseen <= self.limit * SLACK:
                return
            self._unseen = 0
        evict(self._folder.parent.parent, self.limit)


class Place:
    """Which object is kept, and how large it is."""

    def __init__(self, name: str, stamp: str, size: int) -> None:
        self.file_name = f"{name}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
        self.size = size


def evict(root: pathlib.Path, limit: int) -> None:
    """Removes the objects that were not used for longest, until a share of the limit is left.

    Whoever reads one goes on: its file vanishes when the last reader has closed it.
    """
    found: list[tuple[int, int, pathlib.Path]] = []
    for path in root.glob("*/blocks/*.bytes"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_blocks * 512, path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in sorted(found):
        if total <= limit * KEPT:
            return
        total -= size
        for file in (path, list_path(path)):
            file.unlink(missing_ok=True)


def limit_from_environment() -> int:
    """What `$VLA_LENS_CACHE_BYTES` says: a number, or one with K, M, G or T such as 20G.

    Raises:
        ValueError: if it is none.
    """
    given = os.environ.get(VARIABLE, "").strip().lower()
    if not given:
        return DEFAULT_BYTES
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", given)
    if match is None:
        raise ValueError(
            f"`{VARIABLE}` must be a number of bytes such as 20G, but got {given!r}. 0 keeps "
            "nothing on the disk."
        )
    return int(match[1]) * 1024 ** _UNITS[match[2]]
