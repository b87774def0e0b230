"""The kinds of frame sources by name; a new one is one file and one line here."""

import glob
import importlib
from pathlib import Path

from datamodules.frames.frame_source import FrameSource
from jax_bridge.shards.remote.address import is_address

SOURCES: dict[str, str] = {
    "shards": "datamodules.frames.shard_frames.ShardFrames",
    "episodes": "datamodules.frames.episode_files.EpisodeFiles",
    "images": "datamodules.frames.image_folders.ImageFolders",
}
EPISODE_SUFFIXES = (".hdf5", ".h5", ".npz")


def kind_of(path: str) -> str:
    """Which kind of source lies at a path.

    Raises:
        FileNotFoundError: if nothing is there.
    """
    place = Path(path)
    if is_address(path) or (place / "dataset.json").is_file():
        return "shards"
    if not place.exists() and glob.has_magic(path):
        return "episodes"
    if not place.exists():
        raise FileNotFoundError(
            f"`path` must be a data set of shards, episode files or folders of images, but {path} "
            "is not there."
        )
    if place.suffix in EPISODE_SUFFIXES or any(
        file.suffix in EPISODE_SUFFIXES for file in place.rglob("*.*")
    ):
        return "episodes"
    return "images"


def open_source(path: str, kind: str = "auto", instruction: str | None = None) -> FrameSource:
    """Opens frames, whatever kind of source they lie in.

    Args:
        path: where they lie.
        kind: one of `SOURCES`, or auto.
        instruction: where the source does not say what the robot was told.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if the kind is unknown, or the source holds no frames.
    """
    chosen = kind_of(path) if kind == "auto" else kind
    if chosen not in SOURCES:
        raise ValueError(f"`kind` must be auto or one of {', '.join(SOURCES)}, but got {kind!r}.")
    module, _, name = SOURCES[chosen].rpartition(".")
    return getattr(importlib.import_module(module), name)(path, instruction)
