"""The file that says what is changed at which places of a policy; see docs/interventions.md.

Letters: d width, r rank.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "vla-lens-intervention"
VERSION = "1"
AFFINE = "affine"
"""A kind of change: x becomes x + U(Vᵀx) + b."""
REPLACE = "replace"
"""A kind of change: x becomes a given value, another sample's latents for example."""


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
    """x becomes x + U(Vᵀx) + b at one place; the kind `affine`."""

    place: Place
    u: Float32[np.ndarray, "d r"]
    v: Float32[np.ndarray, "d r"]
    b: Float32[np.ndarray, " d"]

    @property
    def kind(self) -> str:
        """As in the file."""
        return AFFINE

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Its numbers, by their names in the file."""
        return {"U": self.u, "V": self.v, "b": self.b}

    @property
    def width(self) -> int:
        """Of the latents that it changes."""
        return len(self.b)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Replacement:
    """x becomes a given value at one place: one for all tokens, or one a token of the region."""

    place: Place
    value: Float32[np.ndarray, "*tokens d"]

    @property
    def kind(self) -> str:
        """As in the file."""
        return REPLACE

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Its numbers, by their names in the file."""
        return {"value": self.value}

    @property
    def width(self) -> int:
        """Of the latents that it changes."""
        return self.value.shape[-1]


PlacedChange = Intervention | Replacement
"""What a file holds of one place."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InterventionFile:
    """What a file holds."""

    interventions: tuple[PlacedChange, ...]
    notes: dict[str, Any]
    """How they were made; for people."""

    @property
    def digest(self) -> str:
        """sha256 of all places and numbers, the same wherever the file lies."""
        digest = hashlib.sha256()
        for found in self.interventions:
            digest.update(json.dumps(dataclasses.asdict(found.place), sort_keys=True).encode())
            for tensor in found.tensors.values():
                digest.update(f"{tensor.shape}".encode())
                digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
        return digest.hexdigest()


def save_interventions(
    path: Path, interventions: Sequence[PlacedChange], notes: dict[str, Any]
) -> None:
    """Writes the file at once or not at all.

    Args:
        path: the file.
        interventions: one a place.
        notes: how they were made, in plain types.
    """
    tensors = {
        f"{number}.{word}": np.ascontiguousarray(tensor)
        for number, found in enumerate(interventions)
        for word, tensor in found.tensors.items()
    }
    places = [{"kind": found.kind, **dataclasses.asdict(found.place)} for found in interventions]
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
                _intervention(entry, lambda word, n=number: file.get_tensor(f"{n}.{word}"))
                for number, entry in enumerate(json.loads(metadata["interventions"]))
            )
        return InterventionFile(interventions=found, notes=json.loads(metadata.get("notes", "{}")))
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`path` must be a file of interventions, but {path} cannot be read as one ({error})."
        ) from error


def _intervention(entry: dict[str, Any], tensor: Callable[[str], np.ndarray]) -> PlacedChange:
    kind = entry.get("kind")
    if kind not in (AFFINE, REPLACE):
        raise ValueError(f"kind {kind!r} is not known")
    place = Place(**{key: value for key, value in entry.items() if key != "kind"})
    words = ("U", "V", "b") if kind == AFFINE else ("value",)
    numbers = [np.asarray(tensor(word), np.float32) for word in words]
    if not all(np.isfinite(array).all() for array in numbers):
        raise ValueError(f"{place.name} holds NaN or infinity")
    if kind == REPLACE:
        return _replacement(place, numbers[0])
    u, v, b = numbers
    if u.ndim != 2 or u.shape != v.shape or b.shape != u.shape[:1]:
        raise ValueError(
            f"U, V and b of {place.name} are {u.shape}, {v.shape} and {b.shape}, which do not fit"
        )
    return Intervention(place=place, u=u, v=v, b=b)


def _replacement(place: Place, value: np.ndarray) -> Replacement:
    if value.ndim not in (1, 2) or (value.ndim == 2 and place.pool == "last"):
        raise ValueError(f"value of {place.name} is {value.shape}, which does not fit")
    return Replacement(place=place, value=value)
