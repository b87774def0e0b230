"""`vla-lens shards inspect`: what a data set holds, out of the index alone."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from jax_bridge.shards.dataset import ShardDataset, open_dataset
from jax_bridge.shards.foreign import foreign_tars
from jax_bridge.shards.foreign_dataset import ForeignDataset, open_foreign
from jax_bridge.shards.index_rows import MEMBER, tensor_column
from jax_bridge.shards.index_table import NO_VALUE, IndexTable
from jax_bridge.shards.remote.address import is_address

SHOWN_TASKS = 40
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_EPISODE = ["suite", "task_id", "episode"]
_TEXTS = ("task_instruction", "instruction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """One task's episodes."""

    suite: str | None
    task_id: int | None
    instruction: str | None
    episodes: int
    successes: int
    unknown: int
    """Episodes of which nobody knows whether they succeeded."""
    samples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldSummary:
    """One field's size."""

    name: str
    dtype: str
    axes: str
    """Sizes with their meaning: `layer 18 x width 2048`."""
    samples: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a data set holds; of somebody else's WebDataset, what can be told."""

    path: str
    fingerprint: str | None
    """None for somebody else's WebDataset, which has no episodes or tasks either."""
    shards: int
    samples: int
    tasks: tuple[TaskSummary, ...]
    fields: tuple[FieldSummary, ...]
    members: dict[str, tuple[int, int]]
    """Count and bytes of each kind of member."""
    errors: int
    """Episodes that ended in an error, by `errors.jsonl`."""

    @property
    def episodes(self) -> int:
        """Of all tasks."""
        return sum(task.episodes for task in self.tasks)

    @property
    def bytes(self) -> int:
        """Of all members."""
        return sum(size for _, size in self.members.values())


def inspect_dataset(path: str | os.PathLike[str]) -> Inspection:
    """Counts episodes, success, fields and bytes; opens no tar of an indexed data set.

    Raises:
        FileNotFoundError: if the folder is no data set.
        ValueError: if it cannot be read.
    """
    try:
        dataset = open_dataset(path)
    except FileNotFoundError:
        if is_address(path) or foreign_tars(pathlib.Path(path)) is None:
            raise
        return _inspect_foreign(open_foreign(path), path)
    index = dataset.index
    return Inspection(
        path=str(dataset.path),
        fingerprint=dataset.fingerprint,
        shards=len(index.codes("shard")[0]),
        samples=index.num_rows,
        tasks=tuple(_tasks(dataset.metadata)),
        fields=tuple(_fields(dataset)),
        members=_members(index),
        errors=len(dataset.errors),
    )


def _inspect_foreign(dataset: ForeignDataset, path: str | os.PathLike[str]) -> Inspection:
    return Inspection(
        path=str(path),
        fingerprint=None,
        shards=len(dataset.tars),
        samples=len(dataset),
        tasks=(),
        fields=tuple(_foreign_fields(dataset)),
        members=_members(dataset.index),
        errors=0,
    )


def _members(index: IndexTable) -> dict[str, tuple[int, int]]:
    return {
        name.removeprefix(MEMBER).removesuffix(".bytes"): index.count_and_sum(name)
        for name in index.column_names
        if name.startswith(MEMBER) and name.endswith(".bytes")
    }


def describe(inspection: Inspection) -> str:
    """The text that `vla-lens shards inspect` prints."""
    known = [t for t in inspection.tasks if t.episodes > t.unknown]
    judged = sum(task.episodes - task.unknown for task in known)
    successes = sum(task.successes for task in known)
    lines = [f"{inspection.path}"]
    if inspection.fingerprint is None:
        lines += ["  somebody else's WebDataset: episodes, tasks and layers are not known"]
    else:
        lines += [
            f"  fingerprint  {inspection.fingerprint[:16]}",
            f"  episodes     {inspection.episodes}, of which {successes} of {judged} judged "
            f"succeeded; {inspection.errors} more ended in an error",
        ]
    lines += [
        f"  samples      {inspection.samples}",
        f"  shards       {inspection.shards}, {readable_bytes(inspection.bytes)}",
    ]
    if inspection.fingerprint is not None:
        tasks = [_task_cells(task) for task in inspection.tasks[:SHOWN_TASKS]]
        head = ("suite", "task", "episodes", "success", "samples", "instruction")
        lines += ["", *_table(head, tasks)]
    if len(inspection.tasks) > SHOWN_TASKS:
        lines.append(f"  ... and {len(inspection.tasks) - SHOWN_TASKS} more tasks")
    fields = [
        (f.name, f.dtype, f.axes, str(f.samples), readable_bytes(f.bytes))
        for f in inspection.fields
    ]
    members = [
        (f".{suffix}", str(count), readable_bytes(size))
        for suffix, (count, size) in inspection.members.items()
    ]
    if fields:
        lines += ["", *_table(("field", "dtype", "axes", "samples", "bytes"), fields)]
    lines += ["", *_table(("member", "samples", "bytes"), members)]
    return "\n".join(lines)


def readable_bytes(count: int) -> str:
    """A size as people say it: `1.5 GiB`."""
    unit = min(max(0, count.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count} bytes" if unit == 0 else f"{count / 1024**unit:.1f} {_UNITS[unit]}"


def _tasks(metadata: IndexTable) -> list[TaskSummary]:
    episodes = (
        _numbered(metadata)
        .group_by(_EPISODE, use_threads=False)
        .aggregate([("success", "max"), ("row", "count"), *((name, "min") for name in _TEXTS)])
    )
    unknown = episodes.column("success_max").is_null().cast(pa.int64())
    episodes = episodes.append_column("unknown", unknown).append_column(
        "won", episodes.column("success_max").fill_null(False).cast(pa.int64())
    )
    tasks = episodes.group_by(_EPISODE[:2], use_threads=False).aggregate(
        [
            ("episode", "count"),
            ("won", "sum"),
            ("unknown", "sum"),
            ("row_count", "sum"),
            *((f"{name}_min", "min") for name in _TEXTS),
        ]
    )
    texts = {name: sorted(metadata.codes(name)[0]) for name in ("suite", *_TEXTS)}
    rows = tasks.sort_by([(name, "ascending") for name in _EPISODE[:2]]).to_pylist()
    return [_task_summary(row, texts) for row in rows]


def _numbered(metadata: IndexTable) -> pa.Table:
    """What tasks are counted by; of a text its place among the sorted ones, null where none is."""
    columns: dict[str, pa.ChunkedArray | pa.Array] = {
        name: metadata.column(name) for name in ("task_id", "episode", "success")
    }
    for name in ("suite", *_TEXTS):
        texts, codes = metadata.codes(name)
        ranks = np.argsort(np.argsort(np.asarray([*texts], object)))
        columns[name] = pa.array(np.append(ranks, NO_VALUE)[codes], mask=codes == NO_VALUE)
    columns["row"] = pa.array(np.zeros(metadata.num_rows, np.bool_))
    return pa.table(columns)


def _task_summary(row: Mapping[str, Any], texts: Mapping[str, list[str]]) -> TaskSummary:
    instructions = [
        None if row[f"{name}_min_min"] is None else texts[name][row[f"{name}_min_min"]]
        for name in _TEXTS
    ]
    return TaskSummary(
        suite=None if row["suite"] is None else texts["suite"][row["suite"]],
        task_id=row["task_id"],
        instruction=instructions[0] or instructions[1],
        episodes=row["episode_count"],
        successes=row["won_sum"],
        unknown=row["unknown_sum"],
        samples=row["row_count_sum"],
    )


def _fields(dataset: ShardDataset) -> list[FieldSummary]:
    summaries = []
    for name, spec in dataset.fields.items():
        column = tensor_column(spec.member, name, "bytes")
        there = column in dataset.index.column_names
        samples, size = dataset.index.count_and_sum(column) if there else (0, 0)
        axes = " x ".join(f"{a} {n}" for a, n in zip(spec.axes, spec.shape, strict=True))
        summaries.append(
            FieldSummary(name=name, dtype=spec.dtype, axes=axes, samples=samples, bytes=size)
        )
    return summaries


def _foreign_fields(dataset: ForeignDataset) -> Iterator[FieldSummary]:
    """The tensors of the first samples that have them; nothing tells whether others are alike."""
    for name in dataset.fields:
        member = dataset.member_of(name)
        rows = dataset.rows_with(member)
        values = dataset.read(name, rows=rows[:1])
        axes = " x ".join(map(str, values.shape[1:]))
        size = values.nbytes * len(rows)
        yield FieldSummary(
            name=name, dtype=str(values.dtype), axes=axes, samples=len(rows), bytes=size
        )


def _task_cells(task: TaskSummary) -> tuple[str, ...]:
    judged = task.episodes - task.unknown
    return (
        task.suite or "-",
        "-" if task.task_id is None else str(task.task_id),
        str(task.episodes),
        f"{task.successes}/{judged}" if judged else "unknown",
        str(task.samples),
        task.instruction or "-",
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
