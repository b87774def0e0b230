"""Which field, layers and flow times a selection means, and its features as one array.

Letters: b batch, c cells, d width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from datamodules.cell import Cell, cells_of_field
from datamodules.token_pool import TOKEN_AXES, pool_tokens, token_axis, tokens_field
from jax_bridge.shards import FieldSpec, ShardDataset, field_name

FLOW_TIME_TOLERANCE = 1e-3
"""A flow time selects the nearest captured one within this distance."""

CELL_AXES = ("layer", "flow_time")
CONTEXT = "context"
"""In place of an expert: what was captured from a torch model."""

Layers = int | list[int] | Literal["all"]
FlowTimes = float | list[float] | Literal["all"]

DEFAULT_REGION = {"vlm": "text", "action": "action"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldChoice:
    """A field and the places of it that are read."""

    spec: FieldSpec
    layers: tuple[int, ...] | None
    """None where the field has no such axis."""
    flow_times: tuple[float, ...] | None
    """As captured; None where the field has no such axis."""
    pool: str | None = None
    """How tokens are pooled while reading; None where the field is read as it is."""
    mask: str | None = None
    """The field that says which tokens are valid; None where all are."""
    region: str | None = None
    """The region that was asked for, where another one's tokens are read."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One cell a layer and flow time, layer first."""
        cells = cells_of_field(self.spec, layers=self.layers, flow_times=self.flow_times)
        asked = {"region": self.region, "pool": self.pool}
        given = {word: value for word, value in asked.items() if value is not None}
        return tuple(dataclasses.replace(cell, **given) for cell in cells)

    @property
    def name(self) -> str:
        """The field that is read."""
        return self.spec.name

    @property
    def identity(self) -> str:
        """The cells' names."""
        return ",".join(cell.name for cell in self.cells)

    @property
    def width(self) -> int:
        """Numbers a cell: all axes behind layer and flow time, flattened, pooled ones left out."""
        gone = (*CELL_AXES, *TOKEN_AXES) if self.pool else CELL_AXES
        pairs = zip(self.spec.axes, self.spec.shape, strict=True)
        return int(np.prod([size for axis, size in pairs if axis not in gone], dtype=int))

    def describe(self) -> dict[str, Any]:
        """What is read, in plain types, for a run's provenance."""
        return {
            "field": self.cells[0].field,
            "read_from": self.spec.name,
            "dtype": self.spec.dtype,
            "layers": self.layers and list(self.layers),
            "flow_times": self.flow_times and list(self.flow_times),
            "width": self.width,
        }

    def read(self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]) -> Float[Tensor, "b c d"]:
        """Reads the features of these rows, in the type in which they were stored.

        What is pooled here is read a layer at a time, as float32.
        """
        if self.pool is not None:
            return as_tensor(self._read_pooled(dataset, rows))
        array = dataset.read(
            self.spec.name, layers=self.layers, flow_times=self.flow_times, rows=rows
        )
        return as_tensor(array.reshape(len(rows), -1, self.width))

    def _read_pooled(
        self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]
    ) -> Float32[np.ndarray, "b c d"]:
        assert self.pool is not None
        axis = token_axis(self.spec)
        assert axis is not None
        place = self.spec.axes.index(axis)
        tokens = self.spec.shape[place]
        mask = np.ones((len(rows), tokens), np.bool_)
        if self.mask is not None:
            mask = dataset.read(self.mask, rows=rows)
        parts = []
        for layer in self.layers or (None,):
            values = dataset.read(
                self.spec.name,
                layers=None if layer is None else [layer],
                flow_times=self.flow_times,
                rows=rows,
            )
            # Axes behind the tokens (none or the width) become one.
            flat = values.reshape(*values.shape[: place + 2], -1)
            parts.append(pool_tokens(flat, mask, self.pool).reshape(len(rows), -1, self.width))
        return np.concatenate(parts, axis=1)


def as_tensor(array: Shaped[np.ndarray, "..."]) -> Shaped[Tensor, "..."]:
    """A tensor of the same bits; torch does not know ml_dtypes' bfloat16."""
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def resolve_region(expert: str, region: str | None) -> tuple[str, str]:
    """Fills the region in and resolves the alias `text_only`.

    Raises:
        ValueError: if `text_only` is asked for another region than text.
    """
    if expert != "text_only":
        return expert, region or DEFAULT_REGION.get(expert, "")
    if region not in (None, "text"):
        raise ValueError(
            f"`region` must be left out with expert text_only, which means (vlm, region text), "
            f"but got {region!r}. Use expert vlm to choose a region."
        )
    return "vlm", "text"


def choose_field(
    fields: Mapping[str, FieldSpec],
    *,
    expert: str,
    site: str,
    region: str | None,
    pool: str,
    layer: Layers = "all",
    flow_time: FlowTimes = "all",
) -> FieldChoice:
    """Resolves the words of a selection against what was captured.

    Raises:
        ValueError: if a word is unknown, or the field, a layer or a flow time was not captured.
    """
    expert, region = resolve_region(expert, region)
    name = f"{expert}.{site}.{region}.{pool}"
    if expert != CONTEXT:  # whose other words are modules of somebody's model
        name = field_name(expert, site, region, pool)
    source, mask = name, None
    if name not in fields:
        source, mask = tokens_field(name, fields) or (name, None)
    if source not in fields:
        raise ValueError(
            f"`expert`, `site`, `region` and `pool` must name a captured field, but got {name}. "
            f"The data set holds {_nearest(name, fields)}."
        )
    spec = fields[source]
    return FieldChoice(
        spec=spec,
        layers=_layers(spec, layer),
        flow_times=_flow_times(spec, flow_time),
        pool=None if source == name else pool,
        mask=mask,
        region=None if source == name else region,
    )


def choose_fields(
    fields: Mapping[str, FieldSpec], names: Sequence[str], *, layer: Layers, flow_time: FlowTimes
) -> tuple[FieldChoice, ...]:
    """Resolves several fields, given by name; `flow_time` restricts those that depend on it.

    Raises:
        ValueError: if a name is no name of a field, stands twice, or was not captured.
    """
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"`fields` must name each field once, but got {list(names)}.")
    choices = []
    for name in names:
        words = name.split(".")
        if len(words) != 4:
            raise ValueError(
                "`fields` must hold names of four words, expert.site.region.pool, but got "
                f"{name!r}. The data set holds {_nearest(name, fields)}."
            )
        expert, site, region, pool = words
        timeless = name in fields and fields[name].flow_times is None
        choices.append(
            choose_field(
                fields, expert=expert, site=site, region=region, pool=pool, layer=layer,
                flow_time="all" if timeless else flow_time,
            )
        )  # fmt: skip
    return tuple(choices)


def _nearest(name: str, fields: Mapping[str, FieldSpec], most: int = 12) -> str:
    """The captured fields, those that share most words first."""
    words = name.split(".")
    latents = [field for field in fields if field.count(".") == 3]

    def shared(field: str) -> int:
        return sum(a == b for a, b in zip(words, field.split("."), strict=False))

    ordered = sorted(latents, key=shared, reverse=True)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return (", ".join(ordered[:most]) or "no latents") + more


def spans(numbers: Sequence[int]) -> str:
    """Numbers as short text: `0-3, 7, 9-11`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)


def _layers(spec: FieldSpec, layer: Layers) -> tuple[int, ...] | None:
    if spec.layers is None:
        if layer != "all":
            raise ValueError(
                f"`layer` must be left out for {spec.name}, which has no layers, but got {layer}."
            )
        return None
    if layer == "all":
        return spec.layers
    wanted = [layer] if isinstance(layer, int) else list(layer)
    missing = [number for number in wanted if number not in spec.layers]
    if missing or not wanted:
        raise ValueError(
            f"`layer` must be captured, but got {layer}. {spec.name} holds layers "
            f"{spans(spec.layers)}."
        )
    _check_distinct("layer", wanted, layer)
    return tuple(wanted)


def _check_distinct(name: str, found: Sequence[int | float], given: Layers | FlowTimes) -> None:
    if len(set(found)) < len(found):
        raise ValueError(
            f"`{name}` must name each place once, but got {given}. Leave the repetition out."
        )


def _flow_times(spec: FieldSpec, flow_time: FlowTimes) -> tuple[float, ...] | None:
    if spec.flow_times is None:
        if flow_time != "all":
            raise ValueError(
                f"`flow_time` must be left out for {spec.name}, which does not depend on it, but "
                f"got {flow_time}. Fields of expert action have flow times."
            )
        return None
    if flow_time == "all":
        return spec.flow_times
    wanted = [flow_time] if isinstance(flow_time, int | float) else list(flow_time)
    times = np.array(spec.flow_times)
    near = [times[np.abs(times - time).argmin()] for time in wanted]
    if not wanted or any(
        abs(a - b) > FLOW_TIME_TOLERANCE for a, b in zip(near, wanted, strict=True)
    ):
        raise ValueError(
            f"`flow_time` must be captured, but got {flow_time}. {spec.name} holds flow times "
            f"{', '.join(f'{t:.2f}' for t in spec.flow_times)}."
        )
    _check_distinct("flow_time", near, flow_time)
    return tuple(float(time) for time in near)
