"""`DATASET/fast/`: FAST codes of every sample, beside the data set that they belong to.

DATASET/fast/
  dataset.json           whose codes these are: data set, tokenizer, statistics, sizes
  processor_config.json  the tokenizer, as it is published
  tokenizer.json
  norm_stats.json        how actions were normalised
  NAME.tar               for each shard, the same keys with one member: KEY.fast.npy
  codes.parquet          all of them (derived: it is made again from the tars)

The data set may be a folder or an address.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jax_bridge.shards.file_layer import LOCAL_FILES, write_error
from jax_bridge.shards.remote.address import is_address
from jax_bridge.shards.remote.store import RemoteStore

FORMAT, VERSION = "vla-lens-fast", 1
MEMBER = "fast.npy"
FOLDER, INFO, CODES, STATISTICS = "fast", "dataset.json", "codes.parquet", "norm_stats.json"


class TargetFolder:
    """The files in `fast/` of a data set; each appears whole or not at all."""

    def __init__(self, dataset: object) -> None:
        """Opens nothing yet.

        Args:
            dataset: its folder, or its address.
        """
        self._name = f"{str(dataset).rstrip('/')}/{FOLDER}"
        self._store = RemoteStore(str(dataset)) if is_address(str(dataset)) else None

    def __str__(self) -> str:
        return self._name

    def read(self, name: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: if there is none.
        """
        if self._store is None:
            return Path(self._name, name).read_bytes()
        return self._store.read(f"{FOLDER}/{name}")

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        if self._store is None:
            return Path(self._name, name).is_file()
        try:
            self._store.size(f"{FOLDER}/{name}")
        except FileNotFoundError:
            return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Puts a file in place.

        Raises:
            OSError: if the disk or the address refuses.
        """
        if self._store is not None:
            self._store.write(f"{FOLDER}/{name}", content)
            return
        try:
            Path(self._name).mkdir(exist_ok=True)
            LOCAL_FILES.write_whole(Path(self._name, name), content)
        except OSError as error:
            raise write_error(error, Path(self._name)) from error

    def names(self) -> list[str]:
        """Files that are there.

        Raises:
            PermissionError: if the address cannot be listed.
        """
        if self._store is not None:
            return self._store.names(FOLDER)
        folder = Path(self._name)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastInfo:
    """What the targets were made of; other targets of the same folder must agree in all of it."""

    dataset: str
    """Fingerprint of the data set."""
    tokenizer: dict[str, Any]
    """Its settings, and the digest of its BPE."""
    norm_stats: str
    """Digest of the numbers."""
    horizon: int
    action_dim: int
    delta_mask: tuple[bool, ...] | None
    """Dimensions that are relative to the state; None where all are absolute."""
    out_of_range: str
    """What was done with coefficients outside the tokenizer's range."""

    def to_json(self) -> dict[str, Any]:
        """The entries of `dataset.json`."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    def to_bytes(self) -> bytes:
        """The content of `dataset.json`."""
        return (json.dumps(self.to_json(), indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: TargetFolder) -> "FastInfo":
        """Reads `dataset.json`.

        Raises:
            ValueError: if it is not one of FAST targets.
        """
        try:
            entry = json.loads(folder.read(INFO))
            if entry["format"] != FORMAT or entry["version"] != VERSION:
                raise ValueError(f"it is {entry['format']} version {entry['version']}")
            mask = entry["delta_mask"]
            names = [field.name for field in dataclasses.fields(cls)]
            values = {name: entry[name] for name in names}
            return cls(**{**values, "delta_mask": None if mask is None else tuple(mask)})
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{folder}/{INFO} cannot be read: {error}. Remove the folder and run `vla-lens "
                "fast attach` again."
            ) from error

    def require_same(self, stored: "FastInfo", folder: TargetFolder) -> None:
        """Refuses to mix targets.

        Raises:
            ValueError: naming what differs.
        """
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(stored)
        if stored.out_of_range == "raise":
            theirs["out_of_range"] = self.out_of_range  # nothing that is there was out of range
        other = [name for name in mine if mine[name] != theirs[name]]
        if other:
            raise ValueError(
                f"`dataset` must have no FAST targets or those of the same settings, but {folder} "
                f"has others: {', '.join(other)} differ. Remove that folder to make them anew."
            )
