"""`DATASET/quarantine/`: where bad shards go; nothing is ever deleted."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

import pyarrow as pa

from jax_bridge.shards.commit import copy_episodes
from jax_bridge.shards.dataset_folder import DatasetFolder, mapped
from jax_bridge.shards.evidence import gather, whole_episodes
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.sample_key import EpisodeId
from jax_bridge.shards.tar_layout import Readable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """A shard that went into quarantine."""

    known: frozenset[EpisodeId]
    """The episodes that it held, as far as anything tells."""
    whole: frozenset[EpisodeId]
    """Those of them that were copied into a part."""
    complete: bool
    """Whether `known` are all that it held."""


def move_away(folder: DatasetFolder, name: str, index: pa.Table | None) -> Moved:
    """Moves a shard into quarantine after its whole episodes are safe in a journalled part.

    Whoever recovers the folder next commits that part, so that a crash in between loses nothing;
    call it under the folder's lock.
    """
    with _bytes_of(folder.tar(name)) as tar:
        evidence = gather(
            name, manifest=folder.manifest(name), rows=folder.rows(name), index=index, tar=tar
        )
        records = whole_episodes(tar, name, evidence)
    if records:
        with folder.tar(name).open("rb") as file:
            part = copy_episodes(folder, file.fileno(), records)
        part.send()
        part.close()
    _move(folder, name)
    return Moved(
        known=frozenset(evidence.episodes),
        whole=frozenset(record.id for record in records),
        complete=evidence.complete,
    )


def quarantined_episodes(folder: DatasetFolder) -> set[EpisodeId]:
    """The episodes that shards in quarantine held, as far as anything tells."""
    episodes: set[EpisodeId] = set()
    entries = folder.quarantine.iterdir() if folder.quarantine.is_dir() else ()
    for name in {path.stem for path in entries}:
        with _bytes_of(folder.quarantine / f"{name}.tar") as tar:
            found = gather(
                name,
                manifest=folder.quarantine / f"{name}.json",
                rows=folder.quarantine / f"{name}.parquet",
                index=None,
                tar=tar,
            )
        episodes |= set(found.episodes)
    return episodes


@contextlib.contextmanager
def _bytes_of(path: pathlib.Path) -> Iterator[Readable]:
    """A tar's bytes; none where it is missing or empty."""
    with contextlib.ExitStack() as stack:
        try:
            tar: Readable = stack.enter_context(mapped(path))
        except DamagedShardError:
            tar = b""
        yield tar


def _move(folder: DatasetFolder, name: str) -> None:
    """The tar first: without it, what is left of the shard misleads nobody."""
    folder.quarantine.mkdir(exist_ok=True)
    paths = [folder.tar(name), folder.manifest(name), folder.rows(name)]
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    taken = {path.stem for path in folder.quarantine.iterdir()}
    free = next(f"{name}{number}" for number in numbers if f"{name}{number}" not in taken)
    for path in paths:
        if path.exists():
            folder.files.rename(path, folder.quarantine / f"{free}{path.suffix}")
    folder.files.sync_folder(folder.quarantine)
    folder.files.sync_folder(folder.shards)
