"""`import_pickles`: a folder of old pickles becomes a data set of episode shards."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jax_bridge.old_pickles.failures import RefusedPickleError
from jax_bridge.old_pickles.layout import (
    OldEpisode,
    TaskFile,
    arrays,
    episodes,
    task_files,
)
from jax_bridge.old_pickles.restricted import read_pickle
from jax_bridge.old_pickles.samples import Cutting, fields_of, require_same
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits, open_writer

FLOW_TIME_LABELS = "labels of the source, not times of this project's sampler"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What is imported, and how."""

    folder: pathlib.Path
    """Holds `task_{id}_{name}.pkl`."""
    suite: str = "imported"
    """A word of letters, digits, underscores and hyphens; the samples' suite."""
    cutting: Cutting = dataclasses.field(default_factory=Cutting)
    """Which tokens are which region."""
    leave_out: tuple[str, ...] = ()
    """Names under a step that are not imported, such as `text_only_hidden_states`."""
    model: str | None = None
    """What the latents came from, in the user's words; becomes part of the fingerprint."""
    max_memory: int = 8 * 2**30
    """Bytes of a file's arrays in memory; the others wait in a temporary file."""
    spool_folder: pathlib.Path | None = None
    """Where that file is made; the system's temporary folder by default."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.suite):
            raise ValueError(
                f"`suite` must be letters, digits, underscores and hyphens, but got {self.suite!r}."
            )
        if self.max_memory < 0:
            raise ValueError(f"`max_memory` must not be negative, but got {self.max_memory}.")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"`folder` must be a folder, but {self.folder} is none.")


@dataclasses.dataclass
class ImportReport:
    """What became of the files."""

    files: int = 0
    episodes: int = 0
    samples: int = 0
    skipped: int = 0
    """Episodes that were there already."""
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    """Files that were not read, and why."""
    errors: list[str] = dataclasses.field(default_factory=list)
    """Episodes that were not imported, and why."""
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Names under the steps that are not known or were to be left out, and how often."""
    others: list[str] = dataclasses.field(default_factory=list)
    """Pickles of other names in the folder."""


def import_pickles(
    plan: ImportPlan,
    out: str,
    limits: ShardLimits | None = None,
    *,
    on_progress: Callable[[ImportReport], None] = lambda report: None,
) -> ImportReport:
    """Reads file after file and writes its episodes; goes on where it stopped.

    Args:
        plan: what is imported.
        out: folder or address of the data set.
        limits: when a new shard begins.
        on_progress: told after every episode and file.

    Raises:
        FileNotFoundError: if the folder holds no such files.
        ValueError: if no file can be imported; the message has the first reason.
        FingerprintError: if `out` holds another data set.
        OSError: if something cannot be read or written.
    """
    report = ImportReport()
    files, others = task_files(plan.folder)
    report.others = [path.name for path in others]
    writer: EpisodeWriter | None = None
    try:
        for file in files:
            for episode in _episodes(plan, file, report):
                if writer is None:
                    specs = _first_specs(plan, file, episode)
                    writer = open_writer(out, _info(plan, specs), limits)
                _import_episode(plan, file, episode, writer, report)
                on_progress(report)
            report.files += 1
            on_progress(report)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        name, why = next(iter(report.refused.items()), ("the files", "they hold no episode."))
        raise ValueError(f"Nothing of {plan.folder} can be imported: {name}: {why}")
    return report


def _episodes(plan: ImportPlan, file: TaskFile, report: ImportReport) -> Iterator[OldEpisode]:
    """The episodes of a file; a file that cannot be read gives none and is noted."""
    try:
        tree = read_pickle(file.path, max_memory=plan.max_memory, spool_folder=plan.spool_folder)
        yield from list(episodes(tree))
    except RefusedPickleError as error:
        report.refused[file.path.name] = error.what
    except ValueError as error:
        report.refused[file.path.name] = str(error)


def _import_episode(
    plan: ImportPlan,
    file: TaskFile,
    episode: OldEpisode,
    writer: EpisodeWriter,
    report: ImportReport,
) -> None:
    place = {"suite": plan.suite, "task_id": file.task_id, "episode": episode.number}
    if tuple(place.values()) in writer.committed:
        report.skipped += 1
        return
    words = episode.instruction or file.task_name.replace("_", " ")
    recorder = writer.episode(
        **place, task_name=file.task_name, instruction=words, task_instruction=words
    )
    samples, timestep = 0, -1
    try:
        with recorder:
            for call, (timestep, step) in enumerate(episode.steps.items()):
                latents = require_same(
                    fields_of(_known(plan, step, report), plan.cutting), writer.info.fields
                )
                recorder.append(timestep=timestep, call=call, latents=latents)
                samples += 1
            recorder.finish(success=episode.success, episode_length=episode.total_steps)
    except ValueError as error:
        where = f"{file.path.name}, episode_{episode.number}, step_{timestep}"
        report.errors.append(f"{where}: {error}")
        writer.record_error(**place, message=f"{where}: {error}")
    else:
        report.episodes += 1
        report.samples += samples


def _known(
    plan: ImportPlan, step: Mapping[str, Any], report: ImportReport
) -> dict[Any, np.ndarray]:
    wanted = {name: group for name, group in step.items() if name not in plan.leave_out}
    report.left_out.update(name for name in step if name in plan.leave_out)
    found, unknown = arrays(wanted)
    report.left_out.update(unknown)
    return found


def _first_specs(plan: ImportPlan, file: TaskFile, episode: OldEpisode) -> dict[str, FieldSpec]:
    """The fields by the first step of all.

    Raises:
        ValueError: if it has none, or its sequences cannot be cut.
    """
    first = next(iter(episode.steps.values()), {})
    found = fields_of(_known(plan, first, ImportReport()), plan.cutting)
    if not found:
        raise ValueError(
            f"{file.path.name}, episode_{episode.number}: its first step must hold latents under "
            f"names that are known, but holds {', '.join(map(str, first)) or 'nothing'}."
        )
    return {name: field.spec for name, field in found.items()}


def _info(plan: ImportPlan, specs: dict[str, FieldSpec]) -> DatasetInfo:
    return DatasetInfo(
        fields=specs,
        capture={"imported": "task pickles", "flow_times": FLOW_TIME_LABELS},
        model={"preset": None, "source": plan.model},
        environment={"name": plan.suite, "protocol": "imported from pickles"},
        seed=0,
    )
