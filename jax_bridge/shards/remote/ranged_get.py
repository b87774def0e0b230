"""One ranged read, by the way that tells most about what came.

S3 and HTTP answer a read with the object's stamp, so that bytes of another version are never taken
for those of this one. fsspec's own reads keep neither stamp nor status: a server without ranges
answers with the whole body, and a lying one with bytes of another place.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from fsspec.asyn import sync

from jax_bridge.shards.remote.refusals import ChangedObjectError
from jax_bridge.shards.remote.retry import ShortBodyError

PIECE = 8 * 2**20
"""Bytes of one request, at most, and of what is held of a stream."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RangesIgnoredError(Exception):
    """The server answers every read with the whole object."""


class Reply(NamedTuple):
    """Bytes, and what the server says about their object."""

    content: bytes
    stamp: str | None
    """None where it does not say."""


Sink = Callable[[int, bytes], None]
"""Takes an offset and the bytes that stand there."""


class PlainGet:
    """Reads by fsspec's `cat_file`."""

    def __init__(self, system: Any) -> None:
        self._system = system

    def range(self, path: str, start: int, stop: int) -> Reply:
        """Bytes `start` to `stop`.

        Raises:
            ShortBodyError: if fewer or more came.
            ChangedObjectError: if the object ends before.
        """
        content = self._system.cat_file(path, start=start, end=stop)
        if len(content) < stop - start:
            self._system.invalidate_cache()
            _require_size(self._system.size(path), stop, path)
        _require_length(content, stop - start, path)
        return Reply(content, None)

    def whole(self, path: str) -> Reply:
        """All bytes."""
        return Reply(self._system.cat_file(path), None)


class S3Get(PlainGet):
    """Reads by `get_object`."""

    def range(self, path: str, start: int, stop: int) -> Reply:
        """Bytes `start` to `stop`.

        Raises:
            ShortBodyError: if fewer or others came.
        """
        return _wait(self._system, self._get, path, start, stop)

    def whole(self, path: str) -> Reply:
        """All bytes."""
        return _wait(self._system, self._get, path)

    async def _get(self, path: str, start: int = 0, stop: int | None = None) -> Reply:
        bucket, key, version = self._system.split_path(path)
        words: dict[str, Any] = {"VersionId": version} if version else {}
        if stop is not None:
            words["Range"] = f"bytes={start}-{stop - 1}"
        reply = await self._system._call_s3("get_object", Bucket=bucket, Key=key, **words)
        async with reply["Body"] as body:
            content = await body.read()
        if stop is not None:
            _require_place(reply.get("ContentRange", ""), start, stop, path)
        _require_length(content, reply["ContentLength"], path)
        return Reply(content, reply.get("ETag"))


class HttpGet(PlainGet):
    """Reads by the session of fsspec's HTTP file system."""

    def range(self, path: str, start: int, stop: int) -> Reply:
        """Bytes `start` to `stop`.

        Raises:
            ShortBodyError: if fewer or others came.
            RangesIgnoredError: if all of a larger object is coming.
        """
        return _wait(self._system, self._range, path, start, stop)

    def whole(self, path: str) -> Reply:
        """All bytes."""
        pieces: list[bytes] = []
        stamp = self.stream(path, lambda _, piece: pieces.append(piece))
        return Reply(b"".join(pieces), stamp)

    def stream(self, path: str, sink: Sink, stop: int | None = None) -> str | None:
        """Passes the object's bytes on, up to `stop`, as they come; returns its stamp.

        Raises:
            ShortBodyError: if the body ends too early.
        """
        return _wait(self._system, self._stream, path, sink, stop)

    def about(self, path: str) -> tuple[int, str | None]:
        """Size and stamp, without the body."""
        return _wait(self._system, self._about, path)

    async def _range(self, path: str, start: int, stop: int) -> Reply:
        words = await self._words(Range=f"bytes={start}-{stop - 1}")
        session = await self._system.set_session()
        async with session.get(self._system.encode_url(path), **words) as reply:
            _require_ok(reply, path)
            if reply.status == 206:
                _require_place(reply.headers.get("Content-Range", ""), start, stop, path)
            elif start != 0 or reply.content_length != stop:
                raise RangesIgnoredError(f"{path} comes only as a whole.")
            content = await reply.read()
        _require_length(content, stop - start, path)
        return Reply(content, http_stamp(reply.headers))

    async def _stream(self, path: str, sink: Sink, stop: int | None) -> str | None:
        session = await self._system.set_session()
        async with session.get(self._system.encode_url(path), **await self._words()) as reply:
            _require_ok(reply, path)
            position = 0
            async for piece in reply.content.iter_chunked(PIECE):
                sink(position, piece)
                position += len(piece)
                if stop is not None and position >= stop:
                    break
            else:
                due = stop if stop is not None else reply.content_length
                if due is not None and position != due:
                    raise ShortBodyError(f"{path} ended after {position} of {due} bytes.")
        return http_stamp(reply.headers)

    async def _about(self, path: str) -> tuple[int, str | None]:
        session = await self._system.set_session()
        url, words = self._system.encode_url(path), await self._words()
        async with session.head(url, allow_redirects=True, **words) as reply:
            _require_ok(reply, path)
            length = reply.headers.get("Content-Length")
            if length is None:
                raise OSError(f"{path} does not tell its size, as a server of files does.")
            return int(length), http_stamp(reply.headers)

    async def _words(self, **headers: str) -> dict[str, Any]:
        words = dict(self._system.kwargs)
        given = {**words.get("headers", {}), **headers, "Accept-Encoding": "identity"}
        return {**words, "headers": given}


def ranged_get(system: Any) -> PlainGet:
    """The best way for a file system."""
    protocols = {system.protocol} if isinstance(system.protocol, str) else {*system.protocol}
    if "s3" in protocols:
        return S3Get(system)
    return HttpGet(system) if protocols & {"http", "https"} else PlainGet(system)


def http_stamp(headers: Any) -> str | None:
    """What changes with the object."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _require_ok(reply: Any, path: str) -> None:
    if reply.status in (404, 410):
        raise FileNotFoundError(path)
    if reply.status == 416:
        raise ChangedObjectError(f"{path} is shorter than it was when it was opened.")
    reply.raise_for_status()


def _require_place(content_range: str, start: int, stop: int, path: str) -> None:
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if found is None or int(found[1]) != start:
        raise ShortBodyError(f"{path} was asked for byte {start}, but gave {content_range!r}.")
    if found[3] != "*":
        _require_size(int(found[3]), stop, path)


def _require_size(size: int, due: int, path: str) -> None:
    if size < due:
        raise ChangedObjectError(f"{path} has {size} bytes now, but had at least {due}.")


def _require_length(content: bytes, due: int, path: str) -> None:
    if len(content) != due:
        raise ShortBodyError(f"{path} gave {len(content)} bytes, but {due} were due.")


def _wait(system: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a coroutine on fsspec's own loop."""
    return sync(system.loop, function, *arguments)
