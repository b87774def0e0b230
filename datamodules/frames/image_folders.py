"""Frames out of folders of images: one folder an episode.

ROOT/EPISODE/0000.png, 0001.png, ... for one camera, which is called base, or for several
ROOT/EPISODE/CAMERA/0000.png, ...; what the robot was told in ROOT/EPISODE/instruction.txt, or for
all of them in ROOT/instruction.txt.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from datamodules.frames.frame_source import FrameEpisode, Frames
from jax_bridge.shards import EpisodeId

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
WORDS = "instruction.txt"
ONLY_CAMERA = "base"


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


class ImageFolders:
    """The frames of a tree of folders.

    Args:
        path: the folder that holds the episodes' folders, or is one itself.
        instruction: for episodes without an instruction.txt.
        suite: a name for all of them.

    Raises:
        FileNotFoundError: if the folder, or an episode's instruction, is not there.
        ValueError: if there is no image.
    """

    def __init__(self, path: str, instruction: str | None = None, suite: str = "images") -> None:
        self._root = Path(path)
        self._given = instruction
        self._suite = suite
        self.skipped: dict[str, str] = {}
        if not self._root.is_dir():
            raise FileNotFoundError(
                f"`path` must be a folder of folders of images, but {path} is not there."
            )
        self._files: list[dict[str, list[Path]]] = []
        self._tasks: dict[str, int] = {}
        self.episodes: list[FrameEpisode] = []
        folders = [self._root] if _images(self._root) else sorted(self._root.iterdir())
        for folder in folders:
            if folder.is_dir():
                self._add(folder)
        if not self.episodes:
            raise ValueError(
                f"`path` must hold folders of images ({', '.join(SUFFIXES)}), but {path} holds "
                "none. One folder is one episode."
            )

    def _add(self, folder: Path) -> None:
        cameras = {p.name: _images(p) for p in sorted(folder.iterdir()) if p.is_dir()}
        cameras = {name: files for name, files in cameras.items() if files}
        if _images(folder):
            cameras = {ONLY_CAMERA: _images(folder)}
        if not cameras:
            self.skipped[str(folder)] = "there is no image in it"
            return
        counts = {name: len(files) for name, files in cameras.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(
                f"`path` must hold equally many images of each camera, but {folder} holds {counts}."
            )
        place, words = len(self.episodes), self._words(folder)
        task = self._tasks.setdefault(words, len(self._tasks))
        self._files.append(cameras)
        self.episodes.append(
            FrameEpisode(
                id=EpisodeId(self._suite, task, place), place=place, name=str(folder),
                instruction=words, timesteps=range(min(counts.values())),
                episode_length=min(counts.values()),
            )
        )  # fmt: skip

    def _words(self, folder: Path) -> str:
        for place in (folder / WORDS, self._root / WORDS):
            if place.is_file():
                return " ".join(place.read_text(encoding="utf-8").split())
        if self._given is not None:
            return self._given
        raise FileNotFoundError(
            f"`path` must say what the robot was told, but neither {folder / WORDS} nor "
            f"{self._root / WORDS} is there. Write it there, or give `instruction`."
        )

    def describe(self) -> dict[str, Any]:
        """The names and sizes of the files, as a digest: other frames are another data set."""
        listed = "\n".join(
            f"{file.relative_to(self._root)} {file.stat().st_size}"
            for cameras in self._files
            for files in cameras.values()
            for file in files
        )
        return {"kind": "images", "files": hashlib.sha256(listed.encode()).hexdigest()}

    def frames(self, episode: FrameEpisode, frames: Sequence[int], camera: str) -> Frames:
        """Decodes some frames of an episode.

        Raises:
            ValueError: if there is no such camera, or an image cannot be decoded.
        """
        files = self._files[episode.place]
        if camera not in files:
            raise ValueError(
                f"`camera` must be one of {', '.join(files)} in {episode.name}, but got {camera!r}."
            )
        return [_decoded(files[camera][frame]) for frame in frames]


def _decoded(path: Path) -> np.ndarray:
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"`path` must hold whole images, but {path} is damaged: {error}") from None
