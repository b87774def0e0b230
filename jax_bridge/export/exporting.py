"""`export`: reads batch after batch and writes each before the next."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import numpy as np

from jax_bridge.export.arrays import NpyFiles, SafetensorsFiles
from jax_bridge.export.sink import Column, MakeSink, Sink
from jax_bridge.export.tables import LerobotColumns, ParquetFile
from jax_bridge.shards import FieldSpec, ShardDataset, open_dataset
from jax_bridge.shards.index_rows import tensor_column
from jax_bridge.shards.projection import project

BATCH_BYTES = 64 * 2**20
FORMATS: dict[str, MakeSink] = {
    "npy": NpyFiles,
    "safetensors": SafetensorsFiles,
    "parquet": ParquetFile,
    "lerobot": LerobotColumns,
}
"""A new format is one class and one line here."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What is exported, and as what."""

    dataset: str
    """Folder or address."""
    out: pathlib.Path
    """A new folder."""
    format: str
    """A name of `FORMATS`."""
    fields: tuple[str, ...]
    """Names of captured fields; may be empty for `parquet` and `lerobot`."""
    layers: tuple[int, ...] | None = None
    """Of fields that have layers; None takes all."""
    flow_times: tuple[float, ...] | None = None
    """Of fields that have flow times; None takes all."""
    where: dict[str, Any] | None = None
    """Metadata column -> value or list of values."""
    fps: float = 10.0
    """Environment steps a second, for LeRobot's `timestamp`, in 1/s."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(
                f"`format` must be one of {', '.join(FORMATS)}, but got {self.format!r}."
            )
        if not self.fields and not FORMATS[self.format].robot:
            raise ValueError(
                f"`field` must name at least one field for the format {self.format}. "
                "`vla-lens shards inspect` lists them."
            )
        if not self.fps > 0:
            raise ValueError(f"`fps` must be positive, but got {self.fps}.")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise ValueError(f"`out` must be a new or empty folder, but {self.out} is not.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written."""

    rows: int
    columns: tuple[Column, ...]
    bytes: int
    """Of all files."""


def export(
    plan: ExportPlan, *, on_rows: Callable[[int, int], None] = lambda done, total: None
) -> ExportReport:
    """Writes the files; they have their names once they are whole.

    Args:
        plan: what is exported.
        on_rows: told rows written and rows in all.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if a field, layer, time or column is not there, or nothing is selected.
        DamagedShardError: naming shard, key, member and offset.
        OSError: if the disk refuses; nothing half-written is left.
    """
    dataset = open_dataset(plan.dataset)
    columns, read = _columns(dataset, plan)
    rows = dataset.select(plan.where)
    if not len(rows):
        raise ValueError(f"`where` must select at least one sample, but got {plan.where}.")
    partial = plan.out.with_name(f".{plan.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        sink = FORMATS[plan.format](partial, columns, len(rows), plan.fps)
        try:
            for done in _written(sink, dataset, rows, columns, read):
                on_rows(done, len(rows))
        finally:
            sink.close()
        if plan.out.exists():
            plan.out.rmdir()
        partial.rename(plan.out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(path.stat().st_size for path in plan.out.rglob("*") if path.is_file())
    return ExportReport(rows=len(rows), columns=columns, bytes=size)


Read = Callable[[np.ndarray], np.ndarray]


def _written(
    sink: Sink,
    dataset: ShardDataset,
    rows: np.ndarray,
    columns: tuple[Column, ...],
    read: dict[str, Read],
) -> Iterator[int]:
    size = sum(int(np.prod(c.shape)) * c.dtype.itemsize for c in columns)
    step = max(1, BATCH_BYTES // max(1, size))
    metadata = dataset.metadata
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        dataset.read_ahead(rows[start + step : start + 2 * step])
        about = metadata.take(some).to_table()
        sink.append(about, {name: one(some) for name, one in read.items()})
        yield start + len(some)


def _columns(dataset: ShardDataset, plan: ExportPlan) -> tuple[tuple[Column, ...], dict[str, Read]]:
    columns, read = [], {}
    for field in plan.fields:
        if field not in dataset.fields:
            dataset.read(field, rows=[])  # raises, and names what is near
        spec = dataset.fields[field]
        layers = plan.layers if spec.layers is not None else None
        times = plan.flow_times if spec.flow_times is not None else None
        columns.append(Column(field, spec.numpy_dtype, project(spec, layers, times).shape))
        read[field] = _reads(dataset, spec, layers, times)
    for name in FORMATS[plan.format].robot:
        if tensor_column("robot.safetensors", name, "offset") in dataset.index.column_names:
            tensor = cast(Literal["state", "actions", "executed", "action_is_pad"], name)
            first = dataset.read_robot(tensor, rows=[0])
            columns.append(Column(name, first.dtype, first.shape[1:]))
            read[name] = _reads_robot(dataset, tensor)
    return tuple(columns), read


def _reads(dataset: ShardDataset, spec: FieldSpec, layers: Any, times: Any) -> Read:
    return lambda rows: dataset.read(spec.name, layers=layers, flow_times=times, rows=rows)


def _reads_robot(dataset: ShardDataset, name: Any) -> Read:
    return lambda rows: dataset.read_robot(name, rows=rows)
