"""Latent fields: their names `{expert}.{site}.{region}.{pool}` and their axes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jax_bridge.vocabulary import (
    EXPERTS,
    POOLS,
    REGIONS,
    REGIONS_OF_EXPERT,
    SITES,
    SPOKEN_REGIONS,
)

AXES: tuple[str, ...] = (
    "layer",
    "flow_time",
    "ar_step",
    "head",
    "frame",
    "token",
    "looking",
    "seen",
    "horizon",
    "width",
    "dim",
)
"""Axis words, in the order in which they stand in a tensor; `looking` and `seen` are the tokens of
a whole matrix of attention."""
CONTEXT = "context"
"""The first word of what was captured from a torch model: `context.{module}.{side}.{pool}`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """What one tensor of every sample is: name, type, shape and the meaning of its axes."""

    name: str
    """`{expert}.{site}.{region}.{pool}`, `mask.{region}`, `valid.{region}`, or for a torch model
    `context.{module}.{side}.{pool}`."""
    dtype: str
    """A numpy or ml_dtypes name: `bfloat16`, `float32`, `bool`."""
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    """One word of `AXES` an axis; layer first, then flow_time or ar_step, then
    token, then width."""
    layers: tuple[int, ...] | None = None
    """Which blocks stand on the `layer` axis; None where there is no such axis."""
    flow_times: tuple[float, ...] | None = None
    """Times at which the `flow_time` axis was evaluated, 1.0 (noise) first."""

    def __post_init__(self) -> None:
        if list(self.axes) != [axis for axis in AXES if axis in self.axes]:
            raise ValueError(
                f"`axes` of {self.name} must be words of {', '.join(AXES)}, in this order, but got "
                f"{self.axes}."
            )
        if len(self.axes) != len(self.shape):
            raise ValueError(
                f"`axes` must name every axis of {self.name}, but got {self.axes} for shape "
                f"{self.shape}."
            )
        for axis, given in (("layer", self.layers), ("flow_time", self.flow_times)):
            size = self.shape[self.axes.index(axis)] if axis in self.axes else None
            if size != (None if given is None else len(given)):
                raise ValueError(
                    f"`{axis}s` must hold one entry a place on the axis of {self.name}, but got "
                    f"{given} for shape {self.shape} with axes {self.axes}."
                )

    @property
    def numpy_dtype(self) -> np.dtype:
        """The numpy dtype, ml_dtypes' for bfloat16."""
        if self.dtype == "bfloat16":
            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.dtype)

    @property
    def member(self) -> str:
        """The member of a sample that holds this field."""
        torch_side = self.name.startswith(f"{CONTEXT}.")
        return f"{CONTEXT if torch_side else 'latents'}.safetensors"

    @property
    def nbytes(self) -> int:
        """Bytes of this field in one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """The entry of `dataset.json`'s `fields`, without the name."""
        entry = dataclasses.asdict(self)
        del entry["name"]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in entry.items()}

    @classmethod
    def from_json(cls, name: str, entry: Mapping[str, Any]) -> "FieldSpec":
        """Reads an entry of `dataset.json`'s `fields`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        return cls(name=name, **values)


def field_name(expert: str, site: str, region: str, pool: str) -> str:
    """Joins the four words to a field's name.

    Raises:
        ValueError: if a word is unknown, or the expert has no such region.
    """
    for word, given, known in (
        ("expert", expert, EXPERTS),
        ("site", site, SITES),
        ("pool", pool, POOLS),
    ):
        if given not in known:
            raise ValueError(f"`{word}` must be one of {', '.join(known)}, but got {given!r}.")
    if site == "attention":
        every = (*REGIONS, *SPOKEN_REGIONS)
        pairs = {f"{a}_to_{b}" for a in every for b in every}
        if region not in pairs:
            raise ValueError(
                f"`region` of site attention must be <region>_to_<region>, but got {region!r}."
            )
    elif expert == "vlm" and region in SPOKEN_REGIONS:
        pass
    elif region not in REGIONS_OF_EXPERT[expert]:
        raise ValueError(
            f"`region` of expert {expert} must be one of "
            f"{', '.join(REGIONS_OF_EXPERT[expert])}, but got {region!r}."
        )
    return f"{expert}.{site}.{region}.{pool}"
