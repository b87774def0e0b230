"""`vla-lens shards inspect`: what a data set holds, out of the index alone."""

import dataclasses
import os

import pyarrow as pa
import pyarrow.compute as pc

from jax_bridge.shards.dataset import ShardDataset, open_dataset
from jax_bridge.shards.index_rows import MEMBER, member_column, tensor_column

SHOWN_TASKS = 40
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_EPISODE = ["suite", "task_id", "episode"]


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
    """What a data set holds."""

    path: str
    fingerprint: str
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
    dataset = open_dataset(path)
    index = dataset.index
    suffixes = [
        name.removeprefix(MEMBER).removesuffix(".bytes")
        for name in index.column_names
        if name.startswith(MEMBER) and name.endswith(".bytes")
    ]
    return Inspection(
        path=str(dataset.path),
        fingerprint=dataset.fingerprint,
        shards=len(index.column("shard").unique()),
        samples=index.num_rows,
        tasks=tuple(_tasks(dataset.metadata)),
        fields=tuple(_fields(dataset)),
        members={s: _count_and_sum(index.column(member_column(s, "bytes"))) for s in suffixes},
        errors=len(dataset.errors),
    )


def describe(inspection: Inspection) -> str:
    """The text that `vla-lens shards inspect` prints."""
    known = [t for t in inspection.tasks if t.episodes > t.unknown]
    judged = sum(task.episodes - task.unknown for task in known)
    successes = sum(task.successes for task in known)
    lines = [
        f"{inspection.path}",
        f"  fingerprint  {inspection.fingerprint[:16]}",
        f"  episodes     {inspection.episodes}, of which {successes} of {judged} judged succeeded; "
        f"{inspection.errors} more ended in an error",
        f"  samples      {inspection.samples}",
        f"  shards       {inspection.shards}, {readable_bytes(inspection.bytes)}",
        "",
        *_table(
            ("suite", "task", "episodes", "success", "samples", "instruction"),
            [_task_cells(task) for task in inspection.tasks[:SHOWN_TASKS]],
        ),
    ]
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
    lines += ["", *_table(("field", "dtype", "axes", "samples", "bytes"), fields)]
    lines += ["", *_table(("member", "samples", "bytes"), members)]
    return "\n".join(lines)


def readable_bytes(count: int) -> str:
    """A size as people say it: `1.5 GiB`."""
    unit = min(max(0, count.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count} bytes" if unit == 0 else f"{count / 1024**unit:.1f} {_UNITS[unit]}"


def _tasks(metadata: pa.Table) -> list[TaskSummary]:
    episodes = metadata.group_by(_EPISODE, use_threads=False).aggregate(
        [("success", "max"), ("key", "count"), ("task_instruction", "min"), ("instruction", "min")]
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
            ("key_count", "sum"),
            ("task_instruction_min", "min"),
            ("instruction_min", "min"),
        ]
    )
    rows = tasks.sort_by([(name, "ascending") for name in _EPISODE[:2]]).to_pylist()
    return [
        TaskSummary(
            suite=row["suite"],
            task_id=row["task_id"],
            instruction=row["task_instruction_min_min"] or row["instruction_min_min"],
            episodes=row["episode_count"],
            successes=row["won_sum"],
            unknown=row["unknown_sum"],
            samples=row["key_count_sum"],
        )
        for row in rows
    ]


def _fields(dataset: ShardDataset) -> list[FieldSummary]:
    summaries = []
    for name, spec in dataset.fields.items():
        column = tensor_column("latents", name, "bytes")
        there = column in dataset.index.column_names
        samples, size = _count_and_sum(dataset.index.column(column)) if there else (0, 0)
        axes = " x ".join(f"{a} {n}" for a, n in zip(spec.axes, spec.shape, strict=True))
        summaries.append(
            FieldSummary(name=name, dtype=spec.dtype, axes=axes, samples=samples, bytes=size)
        )
    return summaries


def _count_and_sum(column: pa.ChunkedArray) -> tuple[int, int]:
    total = pc.call_function("sum", [column]).as_py() or 0
    return len(column) - column.null_count, total


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
