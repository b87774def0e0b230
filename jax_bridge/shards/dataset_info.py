"""`dataset.json`: what a data set is and how it was made."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.failures import FingerprintError
from jax_bridge.shards.field import FieldSpec

FORMAT = "vla-lens-shards"
VERSION = 1
_ADDRESSES = ("checkpoint", "address")
"""Entries of `model` that say where it lay; `params_digest` says what it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """How every sample of a data set was made."""

    fields: dict[str, FieldSpec]
    """The tensors of `.latents.safetensors`, by name."""
    capture: dict[str, Any]
    model: dict[str, Any]
    """Preset, config, checkpoint address, digest of the parameters, dtype."""
    environment: dict[str, Any]
    """Name, version and protocol."""
    seed: int
    instruction_overrides: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, spec in self.fields.items():
            if name != spec.name:
                raise ValueError(
                    f"`fields` must be keyed by each field's name, but got {name!r} for "
                    f"{spec.name!r}."
                )
        canonical_json(self.to_json(with_fingerprint=False))

    @property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint is taken of: no ranges, hosts, limits, dates or addresses."""
        model = dict(self.model)
        if model.get("params_digest"):
            for name in _ADDRESSES:
                model.pop(name, None)
        return {
            "version": VERSION,
            "model": model,
            "capture": self.capture,
            "environment": self.environment,
            "seed": self.seed,
            "instruction_overrides": self.instruction_overrides,
        }

    @property
    def fingerprint(self) -> str:
        """Sha256 of the canonical JSON of `identity`, in hexadecimal."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    def to_json(self, *, with_fingerprint: bool = True) -> dict[str, Any]:
        """The content of `dataset.json`."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "fields": {name: spec.to_json() for name, spec in self.fields.items()},
            "capture": self.capture,
            "model": self.model,
            "environment": self.environment,
            "seed": self.seed,
            "instruction_overrides": self.instruction_overrides,
        }
        if with_fingerprint:
            content["fingerprint"] = self.fingerprint
        return json.loads(canonical_json(content))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DatasetInfo":
        """Reads the content of `dataset.json`.

        Raises:
            ValueError: if it is of another format, or of a version that is not known here.
        """
        if content.get("format") != FORMAT:
            raise ValueError(
                f"`format` of dataset.json must be {FORMAT!r}, but got {content.get('format')!r}."
            )
        if content.get("version") != VERSION:
            raise ValueError(
                f"`version` of dataset.json must be {VERSION}, but got {content.get('version')!r}. "
                "Update VLA Lens to read it."
            )
        missing = {"fields", "capture", "model", "environment", "seed"} - set(content)
        if missing:
            raise ValueError(f"dataset.json must have {', '.join(sorted(missing))}.")
        return cls(
            fields={n: FieldSpec.from_json(n, entry) for n, entry in content["fields"].items()},
            capture=content["capture"],
            model=content["model"],
            environment=content["environment"],
            seed=content["seed"],
            instruction_overrides=content.get("instruction_overrides"),
        )

    def require_same(self, stored: "DatasetInfo", path: object) -> None:
        """Refuses to mix two data sets.

        Raises:
            FingerprintError: naming what differs.
        """
        if self.fingerprint == stored.fingerprint and self.fields == stored.fields:
            return
        mine = {**self.identity, "fields": self.to_json()["fields"]}
        theirs = {**stored.identity, "fields": stored.to_json()["fields"]}
        lines = list(_differences(theirs, json.loads(canonical_json(mine)), ""))
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise FingerprintError(
            f"`path` must be a new folder or one written with the same settings, but {path} "
            f"differs: {'; '.join(lines[:5])}{more}. Choose another folder, or the old settings."
        )


def _differences(old: object, new: object, place: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(
                old.get(key, "nothing"), new.get(key, "nothing"), f"{place}.{key}".lstrip(".")
            )
    elif old != new:
        yield f"{place} is {_short(old)} there, {_short(new)} now"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "..."
