"""`survey`: which episodes lie in some files, and what could not be read."""

import dataclasses
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py

from jax_bridge.episodes.episode_info import EpisodeInfo
from jax_bridge.episodes.failures import why_unreadable
from jax_bridge.episodes.hdf5_values import dataset_at, group_at
from jax_bridge.episodes.layout import Layout, LayoutError
from jax_bridge.episodes.layouts.calvin import CALVIN, calvin_places, describe_calvin, is_calvin
from jax_bridge.episodes.reader import LOCKING
from jax_bridge.episodes.registry import AUTO, check_layout, layout_of

SUFFIXES = (".hdf5", ".h5")
OnFile = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file or an episode that was passed over."""

    path: str
    place: str
    """The episode in it; empty where the whole file was passed over."""
    reason: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.place}" if self.place else self.path
        return f"{where}: {self.reason}"


@dataclasses.dataclass(kw_only=True)
class Survey:
    """What there is, in the order of the files and of the episodes in them."""

    files: int = 0
    """Files (or CALVIN folders) that were looked at."""
    episodes: list[EpisodeInfo] = dataclasses.field(default_factory=list)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)


def survey(
    paths: Sequence[str | os.PathLike[str]], *, layout: str = AUTO, on_file: OnFile | None = None
) -> Survey:
    """Looks into files; no frame is decoded.

    Args:
        paths: files, folders (searched to any depth) and patterns such as `demos/*.hdf5`.
        layout: one of `registry.NAMES`; `auto` finds it out for each file.
        on_file: called with each file that was looked at.

    Raises:
        FileNotFoundError: if a path names nothing, or there is no episode file.
        ValueError: if there is no such layout.
    """
    check_layout(layout)
    found = Survey()
    for path in find_files(paths):
        found.files += 1
        reader = _calvin if path.is_dir() else _hdf5
        for entry in reader(path, layout):
            if isinstance(entry, EpisodeInfo):
                found.episodes.append(entry)
            else:
                found.skipped.append(entry)
        if on_file is not None:
            on_file(str(path))
    return found


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """HDF5 files and CALVIN folders, sorted inside each path, none twice.

    Raises:
        FileNotFoundError: if a path names nothing, or there is no episode file.
    """
    found: dict[Path, None] = {}
    for given in paths:
        text = os.fspath(given)
        matches = [text] if os.path.exists(text) else sorted(glob.glob(text))
        if not matches:
            raise FileNotFoundError(
                f"`demos` must name files, folders or patterns that exist, but got {text!r}. "
                "Check the spelling."
            )
        for match in matches:
            found |= dict.fromkeys(_inside(Path(match)))
    if not found:
        raise FileNotFoundError(
            f"`demos` must hold episode files ({', '.join(SUFFIXES)}, or CALVIN folders), but "
            f"there is none in {', '.join(os.fspath(path) for path in paths)}."
        )
    return list(found)


def _inside(place: Path) -> Iterator[Path]:
    if not place.is_dir() or is_calvin(place):
        yield place
    else:
        for folder, names, files in os.walk(place):
            names.sort()
            here = Path(folder)
            if is_calvin(here):
                names.clear()
                yield here
                continue
            yield from (here / name for name in sorted(files) if name.endswith(SUFFIXES))


def _hdf5(path: Path, layout: str) -> Iterator[EpisodeInfo | Skipped]:
    text = str(path)
    try:
        with h5py.File(path, "r", locking=LOCKING) as file:
            kind = layout_of(file, layout)
            if kind is None:
                names = ", ".join(sorted(str(name) for name in file)[:8]) or "nothing"
                wanted = "a known layout" if layout == AUTO else f"the layout {layout}"
                yield Skipped(path=text, place="", reason=f"it is not of {wanted}; holds {names}")
                return
            yield from _episodes(file, kind, text)
    except Exception as error:  # whatever a damaged file makes HDF5 raise
        yield Skipped(path=text, place="", reason=why_unreadable(error, text))


def _episodes(file: h5py.File, kind: Layout, path: str) -> Iterator[EpisodeInfo | Skipped]:
    places = list(kind.places(file))
    if not places:
        yield Skipped(path=path, place="", reason="it has no episode")
    for place in places:
        try:
            info = kind.describe(file, path, place)
            _check_lengths(group_at(file, place), info)
        except Exception as error:  # whatever a damaged episode makes HDF5 raise
            yield Skipped(path=path, place=place, reason=why_unreadable(error, path))
        else:
            yield info


def _check_lengths(group: h5py.Group, info: EpisodeInfo) -> None:
    """Refuses episodes without steps, and those whose parts are not of the same moments."""
    if info.length < 1:
        raise LayoutError("it has no steps")
    parts = [*((c.place, 0) for c in (*info.actions, *info.state))]
    # Some recorders look once more after the last action.
    parts += [(camera.place, 1) for camera in info.cameras]
    for place, more in parts:
        steps = len(dataset_at(group, place))
        if not info.length <= steps <= info.length + more:
            raise LayoutError(f"`{place}` has {steps} steps, but the actions {info.length}")


def _calvin(path: Path, layout: str) -> Iterator[EpisodeInfo | Skipped]:
    if layout not in (AUTO, CALVIN):
        yield Skipped(path=str(path), place="", reason=f"it is not of the layout {layout}")
        return
    try:
        for place, instruction in calvin_places(path):
            try:
                yield describe_calvin(path, place, instruction)
            except (OSError, LayoutError, LookupError) as error:
                yield Skipped(path=str(path), place=place, reason=_first_step(error, path))
    except (OSError, LayoutError) as error:
        yield Skipped(path=str(path), place="", reason=why_unreadable(error, str(path)))


def _first_step(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "its first step is missing"
    return why_unreadable(error, str(path))
