"""Sums over samples by group, streamed: means and second moments without the samples.

Everything is added in float64, sample by sample: what a running mean in the model's own type would
lose is kept. Letters: g groups.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from jax_bridge.shards import FieldSpec

FORMAT, VERSION = "vla-lens-moments", "1"
FILE = "moments.safetensors"


class GroupSums:
    """The sums of one group (a task, or an episode)."""

    def __init__(self, fields: Mapping[str, FieldSpec]) -> None:
        self.fields = {n: s for n, s in fields.items() if s.dtype != "bool"}
        self.sums = {n: np.zeros(s.shape) for n, s in self.fields.items()}
        self.squares = {n: np.zeros(s.shape) for n, s in self.fields.items()}
        self.counts = {n: np.zeros(_count_shape(s), np.int64) for n, s in self.fields.items()}
        self.samples = 0

    def merge(self, other: "GroupSums") -> None:
        """Adds the sums of other samples."""
        self.samples += other.samples
        for name in self.fields:
            self.sums[name] += other.sums[name]
            self.squares[name] += other.squares[name]
            self.counts[name] += other.counts[name]

    def add(self, latents: Mapping[str, np.ndarray]) -> None:
        """Adds one sample; tokens that are not valid there are not counted."""
        self.samples += 1
        for name, spec in self.fields.items():
            weight = _weight(spec, latents)
            values = np.asarray(latents[name]).astype(np.float64)
            spread = _along_tokens(weight, spec)
            np.add(self.sums[name], values, out=self.sums[name], where=spread)
            np.add(self.squares[name], values * values, out=self.squares[name], where=spread)
            self.counts[name] += weight


class Moments(NamedTuple):
    """What `load_moments` gives."""

    groups: list[dict[str, Any]]
    """One entry a group: suite, task_id, task_name, samples, and of episodes episode, success."""
    tensors: dict[str, np.ndarray]
    """`FIELD.sum`, `FIELD.sum_of_squares`, `FIELD.mean`, `FIELD.second_moment` float64 [g, ...];
    `FIELD.count` int64 [g], or [g, token] where tokens are kept. The second moment is the mean of
    squares; where the count is 0, mean and second moment are NaN."""
    notes: dict[str, Any]
    """Fingerprint, fields, and which episodes are in it."""


def save_moments(
    folder: pathlib.Path,
    groups: Mapping[str, tuple[dict[str, Any], GroupSums]],
    notes: Mapping[str, Any],
) -> None:
    """Writes `moments.safetensors`; it is whole or the one before."""
    tensors: dict[str, np.ndarray] = {}
    for name, spec in (next(iter(groups.values()))[1].fields if groups else {}).items():
        sums = np.stack([g.sums[name] for _, g in groups.values()])
        squares = np.stack([g.squares[name] for _, g in groups.values()])
        counts = np.stack([g.counts[name] for _, g in groups.values()])
        shaped = np.stack([_shaped(np.asarray(count), spec) for count in counts])
        with np.errstate(invalid="ignore", divide="ignore"):
            tensors[f"{name}.mean"] = sums / shaped
            tensors[f"{name}.second_moment"] = squares / shaped
        tensors[f"{name}.sum"], tensors[f"{name}.count"] = sums, counts
        tensors[f"{name}.sum_of_squares"] = squares
    about = [{**entry, "samples": group.samples} for entry, group in groups.values()]
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "groups": json.dumps(about, ensure_ascii=False),
        "keys": json.dumps(list(groups)),
        "notes": json.dumps(dict(notes), ensure_ascii=False),
    }
    part = folder / f".{FILE}.part"
    safetensors.numpy.save_file(tensors, part, metadata)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(folder / FILE)


def load_moments(folder: pathlib.Path) -> Moments:
    """Reads what `encode --reduce` wrote.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if the file is of another format.
    """
    metadata, tensors = _read(folder / FILE)
    return Moments(json.loads(metadata["groups"]), tensors, json.loads(metadata["notes"]))


def resume_moments(
    folder: pathlib.Path, fields: Mapping[str, FieldSpec]
) -> tuple[dict[str, tuple[dict[str, Any], GroupSums]], dict[str, Any]]:
    """The groups as they stood when they were saved, and the notes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another format.
    """
    metadata, tensors = _read(folder / FILE)
    groups: dict[str, tuple[dict[str, Any], GroupSums]] = {}
    for place, (key, entry) in enumerate(
        zip(json.loads(metadata["keys"]), json.loads(metadata["groups"]), strict=True)
    ):
        group = GroupSums(fields)
        group.samples = entry.pop("samples")
        for name in group.sums:
            group.sums[name] = np.array(tensors[f"{name}.sum"][place])
            group.squares[name] = np.array(tensors[f"{name}.sum_of_squares"][place])
            group.counts[name] = np.array(tensors[f"{name}.count"][place])
        groups[key] = (entry, group)
    return groups, json.loads(metadata["notes"])


def _read(path: pathlib.Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"`folder` must hold {FILE}, but {path} is not there.")
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) == (FORMAT, VERSION):
                return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"`folder` must hold a whole {FILE}, but got {path}: {error}.") from None
    raise ValueError(f"`folder` must hold {FILE} of version {VERSION}, but {path} is another file.")


def _region(spec: FieldSpec) -> str:
    return spec.name.split(".")[2] if spec.name.count(".") == 3 else ""


def _weight(spec: FieldSpec, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which tokens (or whether the whole sample) count: bool, of the shape of the count."""
    shape, region = _count_shape(spec), _region(spec)
    valid = np.asarray(latents.get(f"valid.{region}", True)).reshape(())
    mask = latents.get(f"mask.{region}") if shape else None
    return np.broadcast_to(valid if mask is None else np.asarray(mask) & valid, shape)


def _count_shape(spec: FieldSpec) -> tuple[int, ...]:
    return (spec.shape[spec.axes.index("token")],) if "token" in spec.axes else ()


def _along_tokens(weight: np.ndarray, spec: FieldSpec) -> np.ndarray:
    return np.broadcast_to(_shaped(weight, spec), spec.shape)


def _shaped(count: np.ndarray, spec: FieldSpec) -> np.ndarray:
    """With one axis a field's axis, so that it broadcasts."""
    return count.reshape(
        [n if axis == "token" else 1 for n, axis in zip(spec.shape, spec.axes, strict=True)]
    )
