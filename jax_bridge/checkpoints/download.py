"""A checkpoint from an address into a folder: hub, https, or a bucket; one file or a whole tree."""

import dataclasses
import fnmatch
import pathlib
import posixpath
import re
from collections.abc import Callable, Sequence

from jax_bridge.checkpoints.digests import Digest, given_digest, hash_file, told_digest
from jax_bridge.checkpoints.download_record import Brought, DownloadRecord, load_record
from jax_bridge.checkpoints.fetching import RemoteFile, fetch
from jax_bridge.shards.remote.address import is_address, protocol
from jax_bridge.shards.remote.store import RemoteStore

_HUB_PAGE = re.compile(r"https://huggingface\.co/(?P<repo>[^/]+/[^/]+)/(resolve|blob)/(?P<rest>.+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """What is to be brought where."""

    store: RemoteStore
    files: dict[str, RemoteFile]
    """By the path below `out`."""
    out: pathlib.Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Downloaded:
    """What a download has done."""

    record: DownloadRecord
    fetched: list[str]
    kept: list[str]
    """Files that were here already, and right."""


def plan_download(
    address: str,
    out: str | pathlib.Path,
    *,
    include: Sequence[str] = ("*",),
    sha256: str | None = None,
) -> Download:
    """Asks what lies at an address.

    Args:
        address: of a file (`https://host/model.safetensors`), or where the server can list, of a
            folder (`hf://ORG/MODEL`, `gs://bucket/checkpoint`). A file's page on the hub is taken
            for the file.
        out: folder to fill.
        include: patterns of paths below the address, such as `params/*`; `*` also fits slashes.
        sha256: what a single file must come to.

    Raises:
        FileNotFoundError: if there is nothing, or nothing that `include` names.
        ValueError: if it is no address, or `sha256` is given for several files.
        OSError: if the server refuses.
    """
    given = None if sha256 is None else given_digest(sha256)
    if not is_address(address):
        raise ValueError(
            f"`address` must be one such as hf://ORG/MODEL, https://host/file or gs://bucket/"
            f"folder, but got {address!r}."
        )
    store = RemoteStore(_direct(address))
    found = _listed(store)
    files = {path: file for path, file in found.items() if _fits(path, include)}
    if not files:
        raise FileNotFoundError(
            f"`address` must hold files that {' or '.join(include)} fits, but {address} has "
            f"{', '.join(sorted(found)[:5]) or 'nothing'}. Check its spelling."
        )
    if given is not None:
        if len(files) > 1:
            raise ValueError(
                f"`sha256` must be of a single file, but {address} has {len(files)}. Name the "
                "file, or leave it out: the hub's own digests are compared in any case."
            )
        path, file = next(iter(files.items()))
        files = {path: file._replace(digest=given)}
    return Download(store=store, files=files, out=pathlib.Path(out).expanduser())


def download(plan: Download, on_bytes: Callable[[int], None] = lambda _: None) -> Downloaded:
    """Brings all files here, one after the other; what is here and right is not fetched again.

    Args:
        plan: of `plan_download`.
        on_bytes: told of the bytes that are here.

    Raises:
        DigestError: if a file is not what it should be.
        OSError: if one cannot be read or written; the same call goes on later.
        ValueError: if the folder holds a download of another address.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    record = DownloadRecord(address=plan.store.address, files=_known(plan))
    fetched, kept = [], []
    record.save(plan.out)
    for path, file in plan.files.items():
        target = plan.out / path
        here = _already_here(target, file, record.files.get(path))
        if here is not None:
            kept.append(path)
            on_bytes(file.size)
            sha256 = here
        else:
            sha256 = fetch(plan.store, file, target, on_bytes)
            fetched.append(path)
        record.files[path] = Brought(
            size=file.size,
            stamp=file.stamp,
            sha256=sha256,
            compared=file.digest.source if file.digest else None,
        )
        record.save(plan.out)
    record.complete = True
    record.save(plan.out)
    return Downloaded(record=record, fetched=fetched, kept=kept)


def _direct(address: str) -> str:
    """A file's page on the hub as the hub's own address, which tells the digest."""
    page = _HUB_PAGE.fullmatch(address)
    if page is None:
        return address
    revision, _, path = page["rest"].partition("?")[0].partition("/")
    return f"hf://{page['repo']}@{revision}/{path}"


def _listed(store: RemoteStore) -> dict[str, RemoteFile]:
    """All files, by the path that they get here."""
    last = posixpath.basename(store.address.partition("?")[0]) or "file"
    if not store.lists:
        about = store.about("")
        return {last: RemoteFile("", about.size, about.stamp)}
    files = {}
    for name, entry in sorted(store.tree().items()):
        path = name or last
        _require_inside(path, store.address)
        files[path] = RemoteFile(name, int(entry["size"]), entry["stamp"], told_digest(entry))
    return files


def _require_inside(path: str, address: str) -> None:
    words = path.split("/")
    if path.startswith("/") or "\\" in path or {"", ".", ".."} & set(words):
        raise ValueError(
            f"`address` must name files below it, but {address} names {path!r}, which would be "
            "written elsewhere."
        )


def _fits(path: str, include: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in include)


def _known(plan: Download) -> dict[str, Brought]:
    """What an earlier download into this folder has noted."""
    try:
        record = load_record(plan.out)
    except FileNotFoundError:
        return {}
    if record.address != plan.store.address:
        raise ValueError(
            f"`out` must be empty or hold a download of {plan.store.address}, but {plan.out} has "
            f"one of {record.address}. Choose another folder."
        )
    return dict(record.files)


def _already_here(target: pathlib.Path, file: RemoteFile, known: Brought | None) -> str | None:
    """The sha256 of a file that need not be fetched; None where it must be."""
    if not target.is_file() or target.stat().st_size != file.size:
        return None
    if known is not None and known.stamp == file.stamp and _agrees(file.digest, known):
        return known.sha256
    if file.digest is None:
        return None
    hashes = hash_file(target, file.digest)
    return hashes.sha256 if hashes.fits else None


def _agrees(digest: Digest | None, known: Brought) -> bool:
    return digest is None or digest.kind != "sha256" or digest.value == known.sha256


def default_folder(address: str) -> str:
    """A name for a folder, from an address."""
    words = address.partition("?")[0].removeprefix(f"{protocol(address)}://").rstrip("/")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", words) or "checkpoint"
