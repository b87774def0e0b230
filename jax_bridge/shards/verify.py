"""`vla-lens shards verify`: every byte against the manifest, and the parts against each other."""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow.parquet as pq

from jax_bridge.shards.dataset_folder import DIGEST, DatasetFolder, info_bytes, mapped
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index import concatenate, read_index_file
from jax_bridge.shards.index_rows import rows_from_tar
from jax_bridge.shards.manifest import (
    Manifest,
    digest_framing,
    digest_range,
    framing_ranges,
    read_manifest,
)
from jax_bridge.shards.parquet_digest import has_digest, is_as_written
from jax_bridge.shards.tar_layout import BLOCK, END, Member, Readable, scan_members, tar_header

SHOWN_PER_SHARD = 100
"""Problems that are kept of one shard."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was looked at and what is wrong."""

    shards: int
    samples: int
    bytes: int
    problems: tuple[DamagedShardError, ...]
    unfinished: tuple[pathlib.Path, ...]
    """Parts of writers that run, or have died; the next writer deals with them."""


def verify_dataset(
    path: str | os.PathLike[str],
    *,
    workers: int = 2,
    on_shard: Callable[[str, int], None] | None = None,
) -> VerifyReport:
    """Checks a whole data set.

    Args:
        path: folder of the data set.
        workers: threads.
        on_shard: called after each shard with its name and size in bytes.

    Raises:
        FileNotFoundError: if the folder is no data set.
        ValueError: if `dataset.json` cannot be read.
    """
    folder = DatasetFolder(path)
    folder.read_info()
    names = sorted({*folder.names(), *folder.names(".json"), *folder.names(".parquet")})
    problems: list[DamagedShardError] = []
    total = 0
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for name, found in zip(
            names, pool.map(lambda n: check_shard(folder, n), names), strict=True
        ):
            problems += found
            size = folder.tar(name).stat().st_size if folder.tar(name).exists() else 0
            total += size
            if on_shard is not None:
                on_shard(name, size)
    problems += check_dataset_files(folder, names)
    return VerifyReport(
        shards=len(names),
        samples=_count_samples(folder),
        bytes=total,
        problems=tuple(problems),
        unfinished=tuple(folder.parts(".tar")),
    )


def check_info_file(folder: DatasetFolder) -> list[DamagedShardError]:
    """All that is wrong with a `dataset.json` that can be read."""
    return list(_check_info(folder))


def check_dataset_files(folder: DatasetFolder, names: list[str]) -> list[DamagedShardError]:
    """All that is wrong with `dataset.json` and `index.parquet`.

    Raises:
        ValueError: if `dataset.json` cannot be read.
    """
    return [*_check_info(folder), *_check_index(folder, names)]


def check_shard(folder: DatasetFolder, name: str) -> list[DamagedShardError]:
    """All that is wrong with one shard, its manifest and its index rows."""
    problems: list[DamagedShardError] = []
    try:
        manifest = read_manifest(folder.manifest(name))
        if manifest.to_bytes() != folder.manifest(name).read_bytes():
            problems.append(DamagedShardError("its manifest contradicts itself.", shard=name))
        with mapped(folder.tar(name)) as tar:
            problems += check_tar(tar, manifest)
            if not problems:
                problems += _check_rows(folder, tar, name)
    except DamagedShardError as problem:
        problems.append(problem)
    return problems[:SHOWN_PER_SHARD]


def check_tar(tar: Readable, manifest: Manifest) -> Iterator[DamagedShardError]:
    """Where a tar is not what its manifest says."""
    name = manifest.name
    if len(tar) != manifest.size:
        yield DamagedShardError(
            f"the tar has {len(tar)} bytes, but its manifest says {manifest.size}.",
            shard=name,
            offset=min(len(tar), manifest.size),
        )
    for member, digest in manifest.members:
        end = member.offset + member.size
        place = {"key": member.key, "member": member.suffix, "offset": member.offset}
        if member.offset < 0 or member.size < 0 or end > len(tar):
            yield DamagedShardError("it lies outside of the tar.", shard=name, **place)
        elif digest_range(tar, member.offset, end) != digest:
            yield DamagedShardError(
                f"its {member.size} bytes do not have the digest of the manifest.",
                shard=name,
                **place,
            )
    yield from _check_framing(tar, manifest)


def _check_framing(tar: Readable, manifest: Manifest) -> Iterator[DamagedShardError]:
    members = [member for member, _ in manifest.members]
    found: list[Member] = []
    try:
        found.extend(scan_members(tar, manifest.name))
    except DamagedShardError as problem:
        yield _named(problem, members)
        return
    if found != members:
        yield _first_difference(manifest.name, found, members)
    elif digest_framing(tar, members) != manifest.framing_sha256:
        yield _framing_problem(tar, manifest.name, members)


def _named(problem: DamagedShardError, members: Sequence[Member]) -> DamagedShardError:
    """The same problem with the key of the member that should stand at its offset."""
    offset = problem.offset
    if problem.key is not None or offset is None:
        return problem
    due = next((m for m in members if m.offset - BLOCK <= offset < m.end), None)
    if due is None:
        return problem
    return DamagedShardError(
        problem.reason, shard=problem.shard, key=due.key, member=due.suffix, offset=offset
    )


def _first_difference(
    name: str, found: Sequence[Member], members: Sequence[Member]
) -> DamagedShardError:
    pairs = itertools.zip_longest(found, members)
    here, due = next((a, b) for a, b in pairs if a != b)
    place = due or here
    what = f"{here.name} of {here.size} bytes" if here else "nothing"
    wanted = f"{due.name} of {due.size} bytes" if due else "nothing"
    return DamagedShardError(
        f"the tar holds {what} where its manifest has {wanted}.",
        shard=name,
        key=place.key if place else None,
        member=place.suffix if place else None,
        offset=place.offset if place else None,
    )


def _framing_problem(tar: Readable, name: str, members: Sequence[Member]) -> DamagedShardError:
    """Where headers and padding first differ from those that the writer makes."""
    for i, (start, end) in enumerate(framing_ranges(members, len(tar))):
        due = END if i == len(members) else tar_header(members[i].name, members[i].size)
        due, found = due.rjust(end - start, b"\0"), tar[start:end]
        if found != due:
            place = next(j for j in range(len(due)) if found[j] != due[j])
            text = "a byte of a header or of padding is not what it was."
            return _named(DamagedShardError(text, shard=name, offset=start + place), members)
    return DamagedShardError(
        "headers and padding do not have the digest of the manifest.", shard=name
    )


def has_whole_rows(folder: DatasetFolder, name: str) -> bool:
    """Whether a shard's index rows are those of its tar, which must be whole."""
    try:
        with mapped(folder.tar(name)) as tar:
            return not any(_check_rows(folder, tar, name))
    except DamagedShardError:
        return False


def _check_rows(folder: DatasetFolder, tar: Readable, name: str) -> Iterator[DamagedShardError]:
    if not folder.rows(name).exists():
        yield DamagedShardError("it has no index rows. Run `vla-lens shards index`.", shard=name)
        return
    _require_digest(folder.rows(name), name)
    stored, covered = read_index_file(folder.rows(name), name)
    if covered != [name] or not stored.equals(rows_from_tar(tar, name)):
        yield DamagedShardError(
            "its index rows are not those of the tar. Run `vla-lens shards index`.", shard=name
        )


def _check_index(folder: DatasetFolder, names: list[str]) -> Iterator[DamagedShardError]:
    if not folder.index_path.exists():
        yield DamagedShardError(
            "there is no index.parquet. Run `vla-lens shards index`.", shard="(index)"
        )
        return
    try:
        _require_digest(folder.index_path, "(index)")
        there = [name for name in names if folder.rows(name).exists()]
        due = concatenate([read_index_file(folder.rows(name), name)[0] for name in there])
        table, covered = read_index_file(folder.index_path, "(index)")
    except DamagedShardError as problem:
        yield problem
        return
    except ValueError as error:
        yield DamagedShardError(str(error), shard="(all)")
        return
    if covered != names or not table.equals(due):
        yield DamagedShardError(
            "index.parquet is not made of the shards' rows. Run `vla-lens shards index`.",
            shard="(index)",
        )


def _require_digest(path: pathlib.Path, shard: str) -> None:
    """Refuses a Parquet file that is not as it was written.

    Raises:
        DamagedShardError: saying so.
    """
    with mapped(path) as content:
        digested, good = has_digest(content), is_as_written(content)
    if not digested:
        # An earlier version wrote it, or its digest itself is damaged.
        read_index_file(path, shard)
        good = set(pq.read_metadata(path).metadata or {}) == {b"vla-lens", b"ARROW:schema"}
    if not good:
        raise DamagedShardError(
            f"{path.name} does not have its digest. Run `vla-lens shards index`.", shard=shard
        )


def _check_info(folder: DatasetFolder) -> Iterator[DamagedShardError]:
    content = folder.info_path.read_bytes()
    stored = json.loads(content)
    digest = stored.pop(DIGEST, None)
    info = folder.read_info()
    if stored != info.to_json():
        yield DamagedShardError("dataset.json does not have its fingerprint.", shard="(dataset)")
    elif digest is not None and content != info_bytes(info):
        yield DamagedShardError("dataset.json does not have its digest.", shard="(dataset)")


def _count_samples(folder: DatasetFolder) -> int:
    count = 0
    for name in folder.names(".json"):
        try:
            manifest = read_manifest(folder.manifest(name))
        except DamagedShardError:
            continue
        count += len({member.key for member, _ in manifest.members})
    return count
