"""Which bytes of a tensor a choice of layers and flow times needs."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.field import FieldSpec

FLOW_TIME_TOLERANCE = 1e-3
Layers: TypeAlias = int | Sequence[int] | np.ndarray | None
FlowTimes: TypeAlias = float | int | Sequence[float | int] | np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
    """Runs of bytes of equal length inside one tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]
    """Of what is read, the sample axis not counted."""
    offsets: Int64[np.ndarray, " runs"]
    """Of each run, from the tensor's first byte."""
    run_bytes: int
    """Length of a run."""


def whole(dtype: np.dtype, shape: tuple[int, ...]) -> Projection:
    """All of a tensor."""
    return Projection(
        dtype=dtype,
        shape=shape,
        offsets=np.zeros(1, np.int64),
        run_bytes=math.prod(shape) * dtype.itemsize,
    )


def project(spec: FieldSpec, layers: Layers = None, flow_times: FlowTimes = None) -> Projection:
    """The bytes of some layers and flow times of a field; None takes all.

    Raises:
        ValueError: if the field has no such axis, or the layer or time was not captured.
    """
    chosen: dict[str, list[int]] = {}
    if layers is not None:
        chosen["layer"] = layer_places(spec, layers)
    if flow_times is not None:
        chosen["flow_time"] = flow_time_places(spec, flow_times)
    if not chosen:
        return whole(spec.numpy_dtype, spec.shape)
    depth = 1 + max(spec.axes.index(axis) for axis in chosen)
    places = [
        chosen.get(axis, list(range(size)))
        for axis, size in zip(spec.axes[:depth], spec.shape[:depth], strict=True)
    ]
    unit = math.prod(spec.shape[depth:]) * spec.numpy_dtype.itemsize
    grid = np.ravel_multi_index(np.ix_(*places), spec.shape[:depth]).reshape(-1).astype(np.int64)
    shape = (*map(len, places), *spec.shape[depth:])
    offsets = grid * unit
    if len(grid) and np.array_equal(grid, np.arange(grid[0], grid[0] + len(grid))):
        offsets, unit = offsets[:1], unit * len(grid)
    return Projection(dtype=spec.numpy_dtype, shape=shape, offsets=offsets, run_bytes=unit)


def layer_places(spec: FieldSpec, layers: int | Sequence[int] | np.ndarray) -> list[int]:
    """Where layers stand on the layer axis.

    Raises:
        ValueError: if the field has none, or a layer was not captured.
    """
    if spec.layers is None:
        raise ValueError(f"`layers` must be None for {spec.name}, which has no layer axis.")
    wanted = [int(layer) for layer in np.atleast_1d(layers)]
    for layer in wanted:
        if layer not in spec.layers:
            raise ValueError(
                f"`layers` must be among the captured layers {_listed(spec.layers)} of "
                f"{spec.name}, but got {layer}."
            )
    return [spec.layers.index(layer) for layer in wanted]


def flow_time_places(
    spec: FieldSpec, flow_times: float | int | Sequence[float | int] | np.ndarray
) -> list[int]:
    """Where flow times stand on the flow_time axis: the nearest within 1e-3.

    Raises:
        ValueError: if the field has none, or no captured time is near.
    """
    if spec.flow_times is None:
        raise ValueError(f"`flow_times` must be None for {spec.name}, which has no flow_time axis.")
    wanted = [float(time) for time in np.atleast_1d(flow_times)]
    captured = np.asarray(spec.flow_times, np.float64)
    places = []
    for time in wanted:
        distance = np.abs(captured - time)
        if not len(captured) or distance.min() > FLOW_TIME_TOLERANCE:
            raise ValueError(
                f"`flow_times` must be within {FLOW_TIME_TOLERANCE} of the captured times "
                f"{_listed(tuple(round(t, 4) for t in spec.flow_times))} of {spec.name}, but got "
                f"{time}."
            )
        places.append(int(distance.argmin()))
    return places


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "(none)"
