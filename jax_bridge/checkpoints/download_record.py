"""What was downloaded into a folder, so that it can be checked later without a network."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from jax_bridge.checkpoints.digests import hash_file
from jax_bridge.shards.file_layer import LOCAL_FILES

RECORD = ".vla-lens-download.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brought:
    """One file that is here."""

    size: int
    stamp: str
    """Of the object as the server told it."""
    sha256: str
    compared: str | None
    """With whose digest it was compared: `hub`, `bucket`, `given`; None where none was known."""


@dataclasses.dataclass(kw_only=True)
class DownloadRecord:
    """The files of one folder."""

    address: str
    files: dict[str, Brought] = dataclasses.field(default_factory=dict)
    complete: bool = False
    """Whether all that was asked for is here."""

    def save(self, folder: pathlib.Path) -> None:
        """Writes it, whole or not at all."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        LOCAL_FILES.write_whole(folder / RECORD, text.encode())


def load_record(folder: pathlib.Path) -> DownloadRecord:
    """Reads the record of a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(
            f"`out` must be a folder that `vla-lens checkpoint download` has filled, but "
            f"{str(folder)!r} has no {RECORD}."
        )
    try:
        entry: dict[str, Any] = json.loads(path.read_bytes())
        files = {name: Brought(**brought) for name, brought in entry.pop("files").items()}
        return DownloadRecord(files=files, **entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`out` must hold a readable {RECORD}, but got {str(path)!r} ({error}). Remove it and "
            "download again: what is here and right is kept."
        ) from error


def verify(folder: pathlib.Path, on_bytes: Callable[[int], None] = lambda _: None) -> list[str]:
    """Reads every file again, without a network; gives a sentence for each that is not as it was.

    Raises:
        FileNotFoundError: if the folder has no record.
        ValueError: if the record is damaged.
    """
    problems = []
    record = load_record(folder)
    for name, brought in record.files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing.")
        elif path.stat().st_size != brought.size:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {brought.size}.")
        else:
            found = hash_file(path, on_bytes=on_bytes).sha256
            if found != brought.sha256:
                problems.append(f"{name} has the sha256 {found} instead of {brought.sha256}.")
    if not record.complete:
        problems.append("the download was stopped before all was here.")
    return problems
