"""What a report reads from a run folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lightning_modules.results import ProbeResults, load_results

SPLITS = ("test", "val")
"""The split to report, the better one first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Results, provenance and configuration of a run."""

    folder: Path
    results: ProbeResults
    """Of the test split, or of the validation split where there was no test."""
    provenance: dict[str, Any]
    """By stage: fit, validate, test."""
    config: str
    """The text of config.yaml."""

    @property
    def data(self) -> dict[str, Any]:
        """What the reported stage says of its data."""
        stage = "test" if self.results.split == "test" else "validate"
        entry = self.provenance.get(stage) or next(iter(self.provenance.values()), {})
        return entry.get("data", {})

    @property
    def versions(self) -> dict[str, str]:
        """Of the last stage."""
        return list(self.provenance.values())[-1].get("versions", {}) if self.provenance else {}


def read_run(folder: Path) -> RunRecord:
    """Reads a run folder.

    Raises:
        FileNotFoundError: if it is not there, or holds no results.
        ValueError: if a file in it cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`RUN` must be a run folder, but {folder} is not there. `vla-lens fit` makes one."
        )
    found = [split for split in SPLITS if (folder / f"metrics/{split}.json").is_file()]
    if not found:
        raise FileNotFoundError(
            f"`RUN` must hold metrics/test.json or metrics/val.json, but {folder} has neither. "
            f"Run `vla-lens test --ckpt_path {folder}/checkpoints/last.ckpt` first."
        )
    config, provenance = folder / "config.yaml", folder / "provenance.json"
    path = folder / f"metrics/{found[0]}.json"
    try:
        return RunRecord(
            folder=folder,
            results=load_results(path),
            provenance=json.loads(provenance.read_text()) if provenance.is_file() else {},
            config=config.read_text(encoding="utf-8") if config.is_file() else "",
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"`RUN` must hold results of this version, but {path} cannot be read ({error!r}). "
            "Run `vla-lens test` again."
        ) from error
