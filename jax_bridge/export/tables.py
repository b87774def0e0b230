"""One Parquet file: metadata and arrays side by side, or under LeRobot's names.

Source: LeRobot's data set format, version 2.1 (columns `observation.state`, `action`, `timestamp`,
`frame_index`, `episode_index`, `index`, `task_index`; `meta/info.json`, `meta/tasks.jsonl`).
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jax_bridge.export.sink import Column, widened


class ParquetFile:
    """`samples.parquet`; an array is a list of fixed length, its shape in the column's metadata."""

    robot: ClassVar[tuple[str, ...]] = ("state", "actions", "executed", "action_is_pad")

    def __init__(
        self, folder: pathlib.Path, columns: tuple[Column, ...], rows: int, fps: float
    ) -> None:
        self._path = folder / "samples.parquet"
        self._columns = columns
        self._writer: pq.ParquetWriter | None = None

    def append(self, metadata: pa.Table, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows as a group."""
        table = metadata
        for column in self._columns:
            values, field = as_lists(column, column.name, arrays[column.name])
            table = table.append_column(field, values)
        self._writer = written(table, self._path, self._writer)

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.close()


class LerobotColumns:
    """LeRobot's columns, and the fields as `latents.FIELD`; no videos."""

    robot: ClassVar[tuple[str, ...]] = ("state", "executed")
    names: ClassVar[dict[str, str]] = {"state": "observation.state", "executed": "action"}

    def __init__(
        self, folder: pathlib.Path, columns: tuple[Column, ...], rows: int, fps: float
    ) -> None:
        self._folder, self._columns, self._fps = folder, columns, fps
        self._path = folder / "data/chunk-000/file-000.parquet"
        self._path.parent.mkdir(parents=True)
        self._writer: pq.ParquetWriter | None = None
        self._tasks: dict[str, int] = {}
        self._episodes: dict[tuple[str, int, int], int] = {}
        self._count = 0

    def append(self, metadata: pa.Table, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows as a group."""
        table = pa.table(self._own_columns(metadata))
        for column in self._columns:
            name = self.names.get(column.name, f"latents.{column.name}")
            values, field = as_lists(column, name, arrays[column.name])
            table = table.append_column(field, values)
        self._count += table.num_rows
        self._writer = written(table, self._path, self._writer)

    def _own_columns(self, metadata: pa.Table) -> dict[str, pa.Array]:
        words = metadata["instruction"].to_pylist()
        places = zip(*(metadata[name].to_pylist() for name in EPISODE), strict=True)
        steps = metadata["timestep"].to_numpy()
        tasks = [self._tasks.setdefault(text or "", len(self._tasks)) for text in words]
        episodes = [self._episodes.setdefault(place, len(self._episodes)) for place in places]
        index = np.arange(self._count, self._count + metadata.num_rows)
        return {
            "index": pa.array(index, pa.int64()),
            "episode_index": pa.array(episodes, pa.int64()),
            "frame_index": pa.array(steps, pa.int64()),
            "timestamp": pa.array((steps / self._fps).astype(np.float32)),
            "task_index": pa.array(tasks, pa.int64()),
            "next.success": metadata["success"].combine_chunks(),
        }

    def close(self) -> None:
        """Ends the file and writes what it holds into `meta/`."""
        if self._writer is None:
            return
        self._writer.close()
        meta = self._folder / "meta"
        meta.mkdir()
        features = {
            self.names.get(column.name, f"latents.{column.name}"): {
                "dtype": widened(column.dtype).name,
                "shape": list(column.shape),
            }
            for column in self._columns
        }
        about: dict[str, Any] = {
            "fps": self._fps,
            "total_episodes": len(self._episodes),
            "total_frames": self._count,
            "total_tasks": len(self._tasks),
            "features": features,
        }
        (meta / "info.json").write_text(json.dumps(about, indent=2) + "\n")
        lines = [
            json.dumps({"task_index": number, "task": text}) for text, number in self._tasks.items()
        ]
        (meta / "tasks.jsonl").write_text("".join(f"{line}\n" for line in lines))


EPISODE = ("suite", "task_id", "episode")


def as_lists(column: Column, name: str, values: np.ndarray) -> tuple[pa.Array, pa.Field]:
    """Rows of an array as lists of fixed length, and the column's description."""
    dtype = widened(column.dtype)
    flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
    size = int(np.prod(column.shape))
    lists = pa.FixedSizeListArray.from_arrays(flat, size) if size else pa.nulls(len(values))
    about = {"shape": json.dumps(list(column.shape)), "stored_dtype": column.dtype.name}
    return lists, pa.field(name, lists.type, metadata=about)


def written(
    table: pa.Table, path: pathlib.Path, writer: pq.ParquetWriter | None
) -> pq.ParquetWriter:
    """Appends a table to a file that begins with the first one."""
    if writer is None:
        writer = pq.ParquetWriter(path, table.schema, compression="zstd")
    writer.write_table(table)
    return writer
