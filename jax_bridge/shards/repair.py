"""`vla-lens shards repair`: makes a damaged data set whole again and says what is missing."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator

import pyarrow as pa

from jax_bridge.shards.commit import CommittedEpisodes
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.evidence import gather
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.file_layer import write_error
from jax_bridge.shards.index import read_index_file, write_index, write_manifest, write_rows
from jax_bridge.shards.index_rows import rows_from_tar
from jax_bridge.shards.manifest import Manifest, digest_range, read_manifest
from jax_bridge.shards.quarantine import move_away, quarantined_episodes
from jax_bridge.shards.recovery import finish_named, recover
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.tar_layout import Readable
from jax_bridge.shards.verify import check_info_file, check_tar, has_whole_rows

WRITE_AGAIN = (
    "Nothing else tells what dataset.json does: move it away and run `vla-lens collect` with the "
    "options that made the data set, which writes it again."
)
SHOWN_PER_SHARD = 5
"""Problems that are kept of one shard."""


@dataclasses.dataclass(kw_only=True)
class RepairReport:
    """What was wrong and what was done about it."""

    path: pathlib.Path
    shards: int = 0
    """Shards of the data set as it is now."""
    samples: int = 0
    info_problems: list[DamagedShardError] = dataclasses.field(default_factory=list)
    """Of `dataset.json`, which is left as it is."""
    problems: list[DamagedShardError] = dataclasses.field(default_factory=list)
    rebuilt: list[str] = dataclasses.field(default_factory=list)
    """Manifests and index rows that were made again from the tar."""
    quarantined: list[str] = dataclasses.field(default_factory=list)
    """Shards that were moved away, or what was left of them."""
    unknown: list[str] = dataclasses.field(default_factory=list)
    """Quarantined shards of which nothing tells what else they held."""
    recovered: set[EpisodeId] = dataclasses.field(default_factory=set)
    """Whole episodes of quarantined shards; they stand in new ones."""
    missing: set[EpisodeId] = dataclasses.field(default_factory=set)
    """Episodes to collect again, those of earlier repairs included."""


def repair_dataset(
    path: str | os.PathLike[str], *, on_shard: Callable[[str, int], None] | None = None
) -> RepairReport:
    """Rebuilds manifests and index, and moves bad shards into `quarantine/`.

    Args:
        path: folder of the data set.
        on_shard: called after each shard was looked at, with its name and size in bytes.

    Raises:
        FileNotFoundError: if the folder is no data set.
        ValueError: if `dataset.json` cannot be read; nothing else has what it says.
        ShardWriteError: if the disk refuses.
    """
    require_info(path)
    folder = DatasetFolder(path)
    report = RepairReport(path=folder.path, info_problems=check_info_file(folder))
    try:
        folder.create()
        with folder.lock():
            _repair(folder, report, on_shard)
    except OSError as error:
        raise write_error(error, folder.path) from error
    return report


def require_info(path: str | os.PathLike[str]) -> None:
    """Refuses what has no `dataset.json` that can be read, and says how to get one.

    Raises:
        FileNotFoundError: if the folder is no data set.
        ValueError: if `dataset.json` cannot be read.
    """
    try:
        DatasetFolder(path).read_info()
    except ValueError as error:
        raise ValueError(f"{error} {WRITE_AGAIN}") from error


def _repair(
    folder: DatasetFolder, report: RepairReport, on_shard: Callable[[str, int], None] | None
) -> None:
    folder.remove_temporaries()
    finish_named(folder)
    index = _old_index(folder)
    for name in sorted({n for s in (".tar", ".json", ".parquet") for n in folder.names(s)}):
        size = folder.tar(name).stat().st_size if folder.tar(name).exists() else 0
        problems = list(_damage(folder, name))
        if problems:
            _quarantine(folder, name, index, problems, report)
        else:
            _complete(folder, name, report)
        if on_shard is not None:
            on_shard(name, size)
    committed = CommittedEpisodes(folder)
    recover(folder, committed)
    for name, problem in _doubles(folder):
        _quarantine(folder, name, index, [problem], report)
    recover(folder, committed)
    table = write_index(folder)
    report.shards, report.samples = len(folder.names()), table.num_rows
    there = committed.refresh()
    report.recovered &= there
    report.missing = (report.missing | quarantined_episodes(folder)) - there


def _old_index(folder: DatasetFolder) -> pa.Table | None:
    try:
        return read_index_file(folder.index_path, "(index)")[0]
    except (FileNotFoundError, DamagedShardError):
        return None


def _damage(folder: DatasetFolder, name: str) -> Iterator[DamagedShardError]:
    """What is wrong with a shard and cannot be made again from its tar."""
    try:
        with mapped(folder.tar(name)) as tar:
            try:
                yield from check_tar(tar, read_manifest(folder.manifest(name)))
            except DamagedShardError:
                yield from _against_remains(folder, name, tar)
            rows_from_tar(tar, name)
    except DamagedShardError as problem:
        yield problem


def _against_remains(
    folder: DatasetFolder, name: str, tar: Readable
) -> Iterator[DamagedShardError]:
    """Compares a tar with those lines of its manifest that can be read."""
    evidence = gather(
        name, manifest=folder.manifest(name), rows=folder.rows(name), index=None, tar=tar
    )
    for member, digest in evidence.digests.items():
        if member not in evidence.members:
            continue
        if digest_range(tar, member.offset, member.offset + member.size) != digest:
            yield DamagedShardError(
                f"its {member.size} bytes do not have the digest of the manifest.",
                shard=name,
                key=member.key,
                member=member.suffix,
                offset=member.offset,
            )


def _complete(folder: DatasetFolder, name: str, report: RepairReport) -> None:
    """Makes again what is derived from a whole tar, where it is not as it should be."""
    path = folder.manifest(name)
    try:
        good = Manifest.from_bytes(path.read_bytes(), name).to_bytes() == path.read_bytes()
        problem = DamagedShardError("its manifest contradicts itself.", shard=name)
    except (DamagedShardError, FileNotFoundError) as error:
        good = False
        problem = DamagedShardError(f"its manifest cannot be used ({error})", shard=name)
    if not good:
        write_manifest(folder, name)
        report.problems.append(problem)
    rows = has_whole_rows(folder, name)
    if not rows:
        write_rows(folder, name)
        report.problems.append(DamagedShardError("its index rows were not whole.", shard=name))
    if not good or not rows:
        report.rebuilt.append(name)


def _quarantine(
    folder: DatasetFolder,
    name: str,
    index: pa.Table | None,
    problems: list[DamagedShardError],
    report: RepairReport,
) -> None:
    report.problems += problems[:SHOWN_PER_SHARD]
    moved = move_away(folder, name, index)
    report.recovered |= moved.whole
    report.missing |= moved.known
    report.quarantined.append(name)
    if not moved.complete:
        report.unknown.append(name)


def _doubles(folder: DatasetFolder) -> Iterator[tuple[str, DamagedShardError]]:
    """Shards that hold samples which a shard before them holds as well."""
    columns = {
        name: read_index_file(folder.rows(name), name)[0].column("key").combine_chunks()
        for name in folder.whole_names(".parquet")
    }
    keys = pa.chunked_array(list(columns.values()), pa.string())
    if len(keys.unique()) == len(keys):
        return
    first: dict[str, str] = {}
    for name, column in columns.items():
        mine = column.to_pylist()
        double = next((key for key in mine if key in first), None)
        if double is None:
            first.update(dict.fromkeys(mine, name))
            continue
        text = f"the sample stands in shard {first[double]} as well."
        yield name, DamagedShardError(text, shard=name, key=double)
