"""The file that says what is changed at which places of a policy; see docs/interventions.md.

Letters: d width, r rank.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "vla-lens-intervention"
VERSION = "1"
AFFINE = "affine"
"""The only kind of version 1: x becomes x + U(Vᵀx) + b."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where something is changed, in the words of a cell."""

    expert: str
    site: str
    region: str
    pool: str
    """`last` changes the last valid token of the region, anything else all of its valid tokens."""
    layer: int | None = None
    """None: every layer."""
    flow_time: float | None = None
    """None: every flow time."""

    @property
    def name(self) -> str:
        """For people: `vlm.hidden_states.text.mean/layer05/t0.90`."""
        parts = [f"{self.expert}.{self.site}.{self.region}.{self.pool}"]
        parts += [] if self.layer is None else [f"layer{self.layer:02d}"]
        parts += [] if self.flow_time is None else [f"t{self.flow_time:.2f}"]
        return "/".join(parts)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Intervention:
    """x becomes x + U(Vᵀx) + b at one place."""

    place: Place
    u: Float32[np.ndarray, "d r"]
    v: Float32[np.ndarray, "d r"]
    b: Float32[np.ndarray, " d"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InterventionFile:
    """What a file holds."""

    interventions: tuple[Intervention, ...]
    notes: dict[str, Any]
    """How they were made; for people."""

    @property
    def digest(self) -> str:
        """sha256 of all places and numbers, the same wherever the file lies."""
        digest = hashlib.sha256()
        for found in self.interventions:
            digest.update(json.dumps(dataclasses.asdict(found.place), sort_keys=True).encode())
            for tensor in (found.u, found.v, found.b):
                digest.update(f"{tensor.shape}".encode())
                digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
        return digest.hexdigest()


def save_interventions(
    path: Path, interventions: Sequence[Intervention], notes: dict[str, Any]
) -> None:
    """Writes the file at once or not at all.

    Args:
        path: the file.
        interventions: one a place.
        notes: how they were made, in plain types.
    """
    tensors = {
        f"{number}.{word}": np.ascontiguousarray(getattr(found, word.lower()))
        for number, found in enumerate(interventions)
        for word in ("U", "V", "b")
    }
    places = [{"kind": AFFINE, **dataclasses.asdict(found.place)} for found in interventions]
    metadata = {
        "format": FORMAT, "version": VERSION, "interventions": json.dumps(places),
        "notes": json.dumps(notes),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_file(tensors, part, metadata)
    part.replace(path)


def load_interventions(path: Path) -> InterventionFile:
    """Reads a file of interventions.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is another file, of a later version, or its tensors do not fit.
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
                    f"it says {metadata.get('format')!r}, version {metadata.get('version')!r}, not "
                    f"{FORMAT!r}, version {VERSION!r}"
                )
            found = tuple(
                _intervention(entry, [file.get_tensor(f"{number}.{word}") for word in "UVb"])
                for number, entry in enumerate(json.loads(metadata["interventions"]))
            )
        return InterventionFile(interventions=found, notes=json.loads(metadata.get("notes", "{}")))
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`path` must be a file of interventions, but {path} cannot be read as one ({error})."
        ) from error


def _intervention(entry: dict[str, Any], tensors: Sequence[np.ndarray]) -> Intervention:
    if entry.get("kind") != AFFINE:
        raise ValueError(f"kind {entry.get('kind')!r} is not known")
    place = Place(**{key: value for key, value in entry.items() if key != "kind"})
    u, v, b = (np.asarray(tensor, np.float32) for tensor in tensors)
    if u.ndim != 2 or u.shape != v.shape or b.shape != u.shape[:1]:
        raise ValueError(
            f"U, V and b of {place.name} are {u.shape}, {v.shape} and {b.shape}, which do not fit"
        )
    if not all(np.isfinite(tensor).all() for tensor in (u, v, b)):
        raise ValueError(f"{place.name} holds NaN or infinity")
    return Intervention(place=place, u=u, v=v, b=b)
