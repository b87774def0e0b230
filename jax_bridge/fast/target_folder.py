"""`DATASET/fast/`: FAST codes of every sample, beside the data set that they belong to.

DATASET/fast/
  dataset.json           whose codes these are: data set, tokenizer, statistics, sizes
  processor_config.json  the tokenizer, as it is published
  tokenizer.json
  norm_stats.json        how actions were normalised
  NAME.tar               for each shard, the same keys with one member: KEY.fast.npy
  codes.parquet          all of them (derived: it is made again from the tars)
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

FORMAT, VERSION = "vla-lens-fast", 1
MEMBER = "fast.npy"
FOLDER, INFO, CODES, STATISTICS = "fast", "dataset.json", "codes.parquet", "norm_stats.json"


def fast_folder(dataset: object) -> Path:
    """The folder of a data set's FAST targets.

    Raises:
        ValueError: if the data set is at an address.
    """
    if "://" in str(dataset):
        raise ValueError(
            f"`dataset` must be a local folder for FAST targets, but got {dataset}. Copy it first."
        )
    return Path(str(dataset)) / FOLDER


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
        """The content of `dataset.json`."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, path: Path) -> "FastInfo":
        """Reads `dataset.json`.

        Raises:
            ValueError: if it is not one of FAST targets.
        """
        try:
            entry = json.loads(path.read_bytes())
            if entry["format"] != FORMAT or entry["version"] != VERSION:
                raise ValueError(f"it is {entry['format']} version {entry['version']}")
            mask = entry["delta_mask"]
            names = [field.name for field in dataclasses.fields(cls)]
            values = {name: entry[name] for name in names}
            return cls(**{**values, "delta_mask": None if mask is None else tuple(mask)})
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read: {error}. Remove the folder and run `vla-lens fast attach` "
                "again."
            ) from error

    def require_same(self, stored: "FastInfo", path: Path) -> None:
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
                f"`dataset` must have no FAST targets or those of the same settings, but {path} "
                f"has others: {', '.join(other)} differ. Remove that folder to make them anew."
            )
