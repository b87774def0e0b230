"""Writing whole episodes, against `tarfile`; both sides bring everything to the disk.

- write: `EpisodeWriter` (digests, manifest and index included), against copying the same members
- write, memory: the same, against `tarfile` that reads nothing: members that lie in memory
"""

import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.shards_suite.content import EPISODE_SAMPLES, dataset_info, write_ours


def sides(path: Path, dtype: str, samples: int, folder: Path) -> dict[str, Callable[[], float]]:
    """What is compared."""
    info = dataset_info(dtype)
    return {
        "EpisodeWriter": lambda: timed(folder / "ours", lambda p: write_ours(p, info, samples)),
        "tarfile, copying": lambda: timed(folder / "theirs", lambda p: write_theirs(p, path)),
        "tarfile, from memory": lambda: timed(
            folder / "memory", lambda p: write_memory(p, path, samples)
        ),
    }


def write_theirs(path: Path, source: Path) -> int:
    """Copies the same tars with `tarfile`, member by member, and brings each to the disk."""
    path.mkdir()
    samples = 0
    for shard in sorted((source / "shards").glob("*.tar")):
        with (path / shard.name).open("wb") as file:
            with tarfile.open(shard) as old, tarfile.open(fileobj=file, mode="w") as new:
                for member in old:
                    new.addfile(member, old.extractfile(member))
                    samples += member.name.endswith(".json")
            file.flush()
            os.fsync(file.fileno())
    return samples


def write_memory(path: Path, source: Path, samples: int) -> int:
    """Writes the members of one episode again and again, as many samples as asked for."""
    path.mkdir()
    with tarfile.open(sorted((source / "shards").glob("*.tar"))[0]) as old:
        members = [
            (member, file.read())
            for member, _ in zip(old, range(3 * EPISODE_SAMPLES), strict=False)
            if (file := old.extractfile(member)) is not None
        ]
    with (path / "memory.tar").open("wb") as file:
        with tarfile.open(fileobj=file, mode="w") as new:
            for _ in range(samples // EPISODE_SAMPLES):
                for member, content in members:
                    new.addfile(member, io.BytesIO(content))
        file.flush()
        os.fsync(file.fileno())
    return samples // EPISODE_SAMPLES * EPISODE_SAMPLES


def timed(path: Path, write: Callable[[Path], int]) -> float:
    """Samples a second of writing into a fresh folder, which is then removed."""
    begin = time.perf_counter()
    samples = write(path)
    rate = samples / (time.perf_counter() - begin)
    shutil.rmtree(path)
    os.sync()
    return rate
