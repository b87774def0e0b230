"""One data set at an address: reads that are parallel, checked and tried again; whole uploads."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import fsspec
import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.remote.address import is_address, protocol
from jax_bridge.shards.remote.intervals import Ranges, coalesce, ranges
from jax_bridge.shards.remote.ranged_get import (
    PIECE,
    HttpGet,
    RangesIgnoredError,
    Reply,
    Sink,
    ranged_get,
)
from jax_bridge.shards.remote.refusals import ChangedObjectError, Doing, plainly
from jax_bridge.shards.remote.retry import Retries, status_of

PARALLEL = 16
"""Requests at one time, of one store."""
_STAMPS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "mtime", "created", "LastModified")
"""What fsspec's file systems call that which changes with an object; the first there counts."""
_REFUSE_TO_REPLACE = frozenset({"s3", "s3a", "gs", "gcs"})
NOT_IMPLEMENTED = 501
"""Some S3 servers other than Amazon's answer so to a condition."""
_ONE_ATTEMPT = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _ONE_ATTEMPT, "s3a": _ONE_ATTEMPT}
"""s3fs and botocore try again as well, each in its own way: five times five times ours."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object."""

    size: int
    stamp: str
    """Changes when the object does."""


class RemoteStore:
    """The objects below one address.

    Every failure is one sentence: FileNotFoundError, PermissionError with how to log in, or
    another OSError. What may pass is tried again first. Can be used from several threads and sent
    to other processes.

    Raises:
        ValueError: if nothing opens such an address.
        OSError: if its server does not answer.
    """

    def __init__(self, address: str, *, retries: Retries = Retries()) -> None:  # noqa: B008 - frozen
        self.address = address.rstrip("/")
        self.bytes_read = 0
        """Of the bodies that came, those of failed attempts not counted."""
        self.requests = 0
        """Reads, questions and listings, each attempt counted."""
        self.obeys_ranges = True
        """False once the server has answered a ranged read with a whole object."""
        self.retries = retries
        """Of every request; may be changed."""
        self._system, self._root = _open_system(self.address)
        self._get = ranged_get(self._system)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (functools.partial(RemoteStore, retries=self.retries), (self.address,))

    @property
    def lists(self) -> bool:
        """Whether the address can tell what lies there; HTTP cannot."""
        return not isinstance(self._get, HttpGet)

    # ------------------------------------------------------------------ reading

    def read(self, name: str) -> bytes:
        """A whole object."""
        return self._do("read", name, self._get.whole).content

    def read_ranges(
        self,
        name: str,
        starts: Sequence[int] | np.ndarray,
        stops: Sequence[int] | np.ndarray,
        *,
        stamp: str | None = None,
    ) -> list[bytes]:
        """Some ranges of an object, read together where they lie together.

        Raises:
            ChangedObjectError: if the object ends before, or has another stamp.
        """
        wanted = ranges(starts, stops)
        parts: dict[int, bytes] = {}
        self.fetch(name, coalesce(wanted, PIECE), parts.__setitem__, stamp=stamp)
        at = np.asarray(sorted(parts), np.int64)
        return [_cut(parts, at, start, stop) for start, stop in wanted.tolist()]

    def fetch(self, name: str, pieces: Ranges, sink: Sink, *, stamp: str | None = None) -> None:
        """Reads exactly these ranges, in parallel.

        Args:
            name: of the object.
            pieces: sorted ranges.
            sink: gets each piece as soon as it is there, from several threads.
            stamp: what the object must have.

        Raises:
            ChangedObjectError: if the object ends before, or has another stamp; what the sink got
                may be of either version.
        """
        unsaid = threading.Event()

        def one(start: int, stop: int) -> None:
            reply = self._do("read", name, self._get.range, start, stop)
            self._compare(name, stamp, reply.stamp)
            if reply.stamp is None:
                unsaid.set()
            sink(start, reply.content)

        rows = pieces.tolist()
        if not rows:
            return
        try:
            if not self.obeys_ranges:
                raise RangesIgnoredError(f"{self._named(name)} comes only as a whole.")
            self._in_parallel(one, rows)
        except RangesIgnoredError:
            self.obeys_ranges = False
            self._compare(name, stamp, self._do("read", name, self._sift, pieces, sink))
            return
        if stamp is not None and unsaid.is_set():
            self._compare(name, stamp, self.stamp(name))

    def download(self, name: str, sink: Sink, *, stamp: str | None = None) -> int:
        """Passes on all of an object, in pieces and in parallel; returns its size.

        Raises:
            ChangedObjectError: if it has another stamp.
        """
        about = self.about(name)
        self._compare(name, stamp, about.stamp)
        everything = coalesce(ranges([0], [about.size]), PIECE)
        self.fetch(name, everything[everything[:, 1] > 0], sink, stamp=about.stamp)
        return about.size

    # ------------------------------------------------------------------ asking

    def about(self, name: str) -> ObjectInfo:
        """Size and stamp of an object."""
        return self._do("read", name, self._about)

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return self.about(name).size

    def stamp(self, name: str) -> str:
        """A text that changes when the object does."""
        return self.about(name).stamp

    def listing(self, folder: str) -> dict[str, ObjectInfo]:
        """The objects right in a folder, by name; none where there is no such folder.

        Raises:
            PermissionError: if listing is not allowed.
        """
        if not self.lists:
            raise PermissionError(
                f"`path` must be an address that can be listed, but {self.address} cannot: HTTP "
                "has no folders."
            )
        try:
            entries = self._do("listed", folder, self._entries)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: ObjectInfo(
                size=entry["size"], stamp=_stamp(entry)
            )
            for entry in entries
            if entry["type"] == "file"
        }

    def names(self, folder: str) -> list[str]:
        """Names of the objects right in a folder, sorted."""
        return sorted(self.listing(folder))

    def tree(self) -> dict[str, dict[str, Any]]:
        """All objects below the address, by their names under it, as the file system tells them.

        The name is empty where the address is that of an object.

        Raises:
            PermissionError: if listing is not allowed.
        """
        root = self._root.rstrip("/")
        entries = self._do("listed", "", lambda path: self._system.find(path, detail=True))
        return {
            path.removeprefix(root).lstrip("/"): {**entry, "stamp": _stamp(entry)}
            for path, entry in entries.items()
            if entry["type"] == "file"
        }

    # ------------------------------------------------------------------ writing

    def upload(self, local: pathlib.Path, name: str, *, new: bool = False) -> None:
        """Copies a file there; it appears whole or not at all.

        Args:
            local: the file.
            name: of the object.
            new: refuse to replace an object, as far as the server can: S3 and GCS do.

        Raises:
            FileExistsError: if there is one; an earlier attempt whose answer was lost may have
                made it.
        """
        self._require_writable()
        if not local.is_file():
            raise FileNotFoundError(f"`local` must be a file, but {local} is none.")
        self._do("written", name, self._put_local if self._is_local else self._put, local, new)

    def write(self, name: str, content: bytes) -> None:
        """Writes an object; it appears whole or not at all."""
        self._require_writable()
        write = self._write_local if self._is_local else self._system.pipe_file
        self._do("written", name, write, content)

    def remove(self, name: str) -> None:
        """Removes an object; one that is not there is no error."""
        self._require_writable()
        try:
            self._do("written", name, self._system.rm_file)
        except FileNotFoundError:
            return

    # ------------------------------------------------------------------ parts of these

    def _do(self, doing: Doing, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function with the object's path, counted, with retries and plain errors."""
        address, path = self._named(name), self._path(name)

        def once() -> T:
            with self._lock:
                self.requests += 1
            result = function(path, *arguments)
            if isinstance(result, Reply):
                with self._lock:
                    self.bytes_read += len(result.content)
            return result

        with plainly(address, doing):
            return self.retries.call(once, what=f"{address} being {doing}")

    @property
    def _is_local(self) -> bool:
        return protocol(self.address) in ("file", "local")

    def _named(self, name: str) -> str:
        head, mark, query = self.address.partition("?")
        return f"{head.rstrip('/')}/{name}{mark}{query}".rstrip("/")

    def _path(self, name: str) -> str:
        head, mark, query = self._root.partition("?") if not self.lists else (self._root, "", "")
        return f"{head.rstrip('/')}/{name}{mark}{query}".rstrip("/")

    def _in_parallel(self, function: Callable[[int, int], None], rows: list[list[int]]) -> None:
        if len(rows) == 1:
            function(*rows[0])
            return
        futures = [self._pool.submit(function, *row) for row in rows]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
            concurrent.futures.wait(futures)

    @functools.cached_property
    def _pool(self) -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(PARALLEL, "remote-read")

    def _sift(self, path: str, pieces: Ranges, sink: Sink) -> str | None:
        """Picks pieces out of a stream of the whole object."""
        assert isinstance(self._get, HttpGet)
        return self._get.stream(path, Sieve(pieces, sink).take, int(pieces[-1, 1]))

    def _about(self, path: str) -> ObjectInfo:
        if isinstance(self._get, HttpGet):
            size, stamp = self._get.about(path)
            return ObjectInfo(size=size, stamp=stamp or f"{size} bytes")
        self._system.invalidate_cache()
        entry = self._system.info(path)
        if entry["type"] != "file":
            raise FileNotFoundError(path)
        return ObjectInfo(size=entry["size"], stamp=_stamp(entry))

    def _entries(self, path: str) -> list[dict[str, Any]]:
        self._system.invalidate_cache()
        return self._system.ls(path, detail=True)

    def _compare(self, name: str, due: str | None, found: str | None) -> None:
        if due is not None and found is not None and due != found:
            raise ChangedObjectError(
                f"{self._named(name)} has changed while it was read. Open the data set again."
            )

    def _put(self, path: str, local: pathlib.Path, new: bool) -> None:
        if new and protocol(self.address) in _REFUSE_TO_REPLACE:
            try:
                self._system.put_file(str(local), path, mode="create")
            except Exception as error:
                if status_of(error) != NOT_IMPLEMENTED:
                    raise
            else:
                return
        self._system.put_file(str(local), path)

    def _put_local(self, path: str, local: pathlib.Path, new: bool) -> None:
        target = pathlib.Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            shutil.copyfile(local, temporary)
            if new:
                os.link(temporary, target)
            else:
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _write_local(self, path: str, content: bytes) -> None:
        target = pathlib.Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _require_writable(self) -> None:
        if not self.lists:
            raise ValueError(
                f"`path` must be an address that can be written, but got {self.address}: HTTP "
                "can only be read. Use s3://, gs:// or hf://."
            )


class Sieve:
    """Picks sorted pieces out of bytes that come in order."""

    def __init__(self, pieces: Ranges, sink: Sink) -> None:
        self._rows = collections.deque(pieces.tolist())
        self._sink = sink
        self._held: list[bytes] = []

    def take(self, start: int, content: bytes) -> None:
        """Passes on the pieces that end in these bytes."""
        stop = start + len(content)
        while self._rows and self._rows[0][0] < stop:
            first, last = self._rows[0]
            self._held.append(content[max(first - start, 0) : last - start])
            if last > stop:
                return
            self._sink(first, b"".join(self._held))
            self._held.clear()
            self._rows.popleft()


def _open_system(address: str) -> tuple[Any, str]:
    if not is_address(address):
        raise ValueError(f"`address` must be one such as s3://bucket/data, but got {address!r}.")
    try:
        system, root = fsspec.core.url_to_fs(
            address, use_listings_cache=False, **_OPTIONS.get(protocol(address), {})
        )
    except (ImportError, ValueError) as error:
        if isinstance(error, ImportError):
            remedy = "Install what opens it: pip install 'vla-lens[remote]'"
        else:
            remedy = "Use s3://, gs://, hf://, https:// or another protocol of fsspec"
        text = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"`path` must be an address that can be opened, but got {address} ({text}). {remedy}."
        ) from error
    except OSError as error:  # some file systems connect at once
        with plainly(address, "read"):
            raise error
    if protocol(address) in _OPTIONS:
        system.retries = 1
    return system, root


def _stamp(entry: dict[str, Any]) -> str:
    """What changes with an object, by its entry in a listing or its own."""
    for name in _STAMPS:
        value = entry.get(name)
        if value:
            value = value.timestamp() if hasattr(value, "timestamp") else value
            return str(value) if name == "ETag" else f"{value} {entry['size']} bytes"
    return f"{entry['size']} bytes"


def _cut(parts: dict[int, bytes], at: Int64[np.ndarray, " pieces"], start: int, stop: int) -> bytes:
    """One range, out of the pieces that were read."""
    if stop <= start:
        return b""
    first = int(np.searchsorted(at, start, side="right")) - 1
    last = int(np.searchsorted(at, stop, side="left"))
    piece = b"".join(parts[int(a)] for a in at[first:last])
    return piece[start - int(at[first]) : stop - int(at[first])]
