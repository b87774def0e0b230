"""Digests of files: our own, and those that the servers tell."""

import base64
import binascii
import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

READ_BYTES = 8 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Digest(NamedTuple):
    """What a file's content must come to."""

    kind: str
    """`sha256`, `md5`, or `git`: sha1 of git's header and the content."""
    value: str
    """In hexadecimal digits."""
    source: str
    """Who says so: `hub`, `bucket` or `given`."""


def told_digest(entry: Mapping[str, Any]) -> Digest | None:
    """The digest that a server's own description of an object holds; None where there is none.

    Source: huggingface_hub, `HfFileSystem` (`lfs`, `blob_id`); Google Cloud Storage, objects
    (`md5Hash`).
    """
    large = entry.get("lfs")
    if large is not None:
        value = large["sha256"] if isinstance(large, Mapping) else large.sha256
        return Digest("sha256", str(value), "hub")
    if entry.get("blob_id"):
        return Digest("git", str(entry["blob_id"]), "hub")
    if entry.get("md5Hash"):
        try:
            return Digest("md5", base64.b64decode(entry["md5Hash"]).hex(), "bucket")
        except (binascii.Error, ValueError):
            return None
    return None


def given_digest(text: str) -> Digest:
    """A sha256 as a person writes it.

    Raises:
        ValueError: if it is none.
    """
    value = text.strip().lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(value):
        raise ValueError(f"`sha256` must be 64 hexadecimal digits, but got {text!r}.")
    return Digest("sha256", value, "given")


class Hashes:
    """Our sha256 of a file, and whatever else it must be compared by, in one reading."""

    def __init__(self, size: int, wanted: Digest | None) -> None:
        self._wanted = wanted
        self._sha256 = hashlib.sha256()
        self._other: Any = None
        if wanted is not None and wanted.kind == "git":
            self._other = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        elif wanted is not None and wanted.kind == "md5":
            self._other = hashlib.md5(usedforsecurity=False)

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        self._sha256.update(piece)
        if self._other is not None:
            self._other.update(piece)

    @property
    def sha256(self) -> str:
        """Of what was added."""
        return self._sha256.hexdigest()

    @property
    def found(self) -> str:
        """What is to be compared."""
        return self.sha256 if self._other is None else self._other.hexdigest()

    @property
    def fits(self) -> bool:
        """Whether the content is the wanted one; true where none is."""
        return self._wanted is None or self.found == self._wanted.value


def hash_file(
    path: pathlib.Path, wanted: Digest | None = None, on_bytes: Callable[[int], None] | None = None
) -> Hashes:
    """Reads a whole file."""
    hashes = Hashes(path.stat().st_size, wanted)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            hashes.add(piece)
            if on_bytes is not None:
                on_bytes(len(piece))
    return hashes
