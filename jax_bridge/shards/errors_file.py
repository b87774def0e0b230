"""`errors.jsonl`: episodes that ended in an error and were not written as samples."""

import json
import os

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.episode_record import exact
from jax_bridge.shards.sample_key import EpisodeId


def append_error(folder: DatasetFolder, episode: EpisodeId, message: str) -> None:
    """Adds a line and brings it to the disk."""
    entry = {**episode._asdict(), "message": message}
    line = canonical_json(entry).encode() + b"\n"
    with folder.lock(), folder.errors_path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        # A crash may have cut the line before.
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" + line if torn else line)
        file.flush()
        folder.files.sync(file.fileno())


def read_errors(folder: DatasetFolder) -> set[EpisodeId]:
    """Episodes that the file names; half-written lines are passed over."""
    content = folder.errors_path.read_bytes() if folder.errors_path.exists() else b""
    return errors_in(content)


def errors_in(content: bytes) -> set[EpisodeId]:
    """Episodes that the content of such a file names."""
    episodes: set[EpisodeId] = set()
    for line in content.split(b"\n"):
        try:
            entry = json.loads(line)
            suite = exact(entry["suite"], str)
            numbers = exact(entry["task_id"], int), exact(entry["episode"], int)
            episodes.add(EpisodeId(suite, *numbers))
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return episodes
