"""The file that says what is changed at which places of a policy; see docs/interventions.md.

Letters: d width, r rank.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from datamodules.cell import Cell

FORMAT = "vla-lens-intervention"
VERSION = "1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intervention:
    """x becomes x + U(Vᵀx) + b at one cell."""

    cell: Cell
    u: Float32[np.ndarray, "d r"]
    v: Float32[np.ndarray, "d r"]
    b: Float32[np.ndarray, " d"]


def save_interventions(
    path: Path, interventions: Sequence[Intervention], notes: dict[str, Any]
) -> None:
    """Writes the file at once or not at all.

    Args:
        path: the file.
        interventions: one a cell.
        notes: how they were made, in plain types.
    """
    tensors = {
        f"{place}.{word}": np.ascontiguousarray(getattr(found, word.lower()))
        for place, found in enumerate(interventions)
        for word in ("U", "V", "b")
    }
    places = [{"kind": "affine", **found.cell.to_json()} for found in interventions]
    metadata = {
        "format": FORMAT, "version": VERSION, "interventions": json.dumps(places),
        "notes": json.dumps(notes),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_file(tensors, part, metadata)
    part.replace(path)


def load_interventions(path: Path) -> tuple[list[Intervention], dict[str, Any]]:
    """Reads a file of interventions, and how they were made.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is another file, or of a later version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a file of interventions, but {path} is not there. `vla-lens erase` "
            "makes one."
        )
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise ValueError(
                    f"`path` must be a file of interventions of version {VERSION}, but {path} "
                    f"says {metadata.get('format')!r}, version {metadata.get('version')!r}."
                )
            found = []
            for place, entry in enumerate(json.loads(metadata["interventions"])):
                cell = Cell.from_json({k: v for k, v in entry.items() if k != "kind"})
                u, v, b = (file.get_tensor(f"{place}.{word}") for word in ("U", "V", "b"))
                found.append(Intervention(cell=cell, u=u, v=v, b=b))
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"`path` must be a file of interventions, but {path} cannot be read as one ({error})."
        ) from error
    return found, json.loads(metadata.get("notes", "{}"))
