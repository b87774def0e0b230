"""CALVIN: a folder with an npz a step, `ep_start_end_ids.npy`, and annotations of some spans.

CALVIN's own annotations (`lang_annotations/auto_lang_ann.npy`) are a pickle, which may run code
and is not read. A `lang_annotations/auto_lang_ann.json` beside it is: a list of
`{"start": 1, "end": 64, "instruction": "..."}`. Without it every recording is one episode.

Source: CALVIN, dataset/README.md.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jax_bridge.episodes.episode_info import Camera, Column, EpisodeInfo
from jax_bridge.episodes.layout import LayoutError

CALVIN = "calvin"
SPANS = "ep_start_end_ids.npy"
WORDS = "lang_annotations/auto_lang_ann.json"
CAMERAS = {"rgb_static": "base", "rgb_gripper": "left_wrist"}
ACTIONS, STATE = "rel_actions", "robot_obs"


def is_calvin(folder: Path) -> bool:
    """Whether a folder is a split of CALVIN."""
    return (folder / SPANS).is_file()


def calvin_places(folder: Path) -> Iterator[tuple[str, str | None]]:
    """Each episode's place, `START-END` (END included), and its instruction.

    Raises:
        LayoutError: if the spans or the annotations are not what CALVIN's are.
        OSError: if they cannot be read.
    """
    words = folder / WORDS
    if words.is_file():
        yield from _annotated(words)
        return
    try:
        spans = np.load(folder / SPANS, allow_pickle=False)
    except ValueError as error:
        raise LayoutError(f"its {SPANS} is no array of numbers") from error
    if spans.ndim != 2 or spans.shape[1] != 2 or spans.dtype.kind not in "iu":
        raise LayoutError(f"its {SPANS} must be [episodes, 2], but is {list(spans.shape)}")
    for first, last in spans.tolist():
        yield f"{first}-{last}", None


def _annotated(path: Path) -> Iterator[tuple[str, str | None]]:
    try:
        entries = json.loads(path.read_bytes())
        for entry in entries:
            yield f"{int(entry['start'])}-{int(entry['end'])}", str(entry["instruction"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise LayoutError(
            f"its {WORDS} is no list of objects with start, end and instruction"
        ) from error


def describe_calvin(folder: Path, place: str, instruction: str | None) -> EpisodeInfo:
    """What one span holds; reads array headers of its first step only.

    Raises:
        LayoutError: if the span is empty or the first step has no actions.
        OSError: if the first step cannot be read.
    """
    first, last = (int(number) for number in place.split("-"))
    if last < first:
        raise LayoutError(f"its span {place} is empty")
    shapes = _shapes(step_file(folder, first))
    if ACTIONS not in shapes:
        raise LayoutError(f"its steps have no `{ACTIONS}`")
    cameras = tuple(
        Camera(name=name, place=word, height=shapes[word][0], width=shapes[word][1])
        for word, name in CAMERAS.items()
        if len(shapes.get(word, ())) == 3
    )
    sizes = {name: shapes[name][0] for name in (ACTIONS, STATE) if len(shapes.get(name, ())) == 1}
    return EpisodeInfo(
        path=str(folder), place=place, layout=CALVIN, length=last - first + 1,
        actions=(Column(place=ACTIONS, size=sizes[ACTIONS]),),
        state=(Column(place=STATE, size=sizes[STATE]),) if STATE in sizes else (),
        cameras=cameras, instruction=instruction,
    )  # fmt: skip


def step_file(folder: Path, number: int) -> Path:
    """The file of one step."""
    return folder / f"episode_{number:07d}.npz"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each array of an npz, from its header."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    shapes[name.removesuffix(".npy")] = _header_shape(file)
    except (zipfile.BadZipFile, ValueError) as error:
        raise OSError(f"{path.name} is no npz file") from error
    return shapes


def _header_shape(file: Any) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    return read(file)[0]
