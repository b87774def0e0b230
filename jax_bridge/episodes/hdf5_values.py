"""Small things out of HDF5 files: texts, attributes, columns and cameras, without any frame."""

import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from PIL import Image

from jax_bridge.episodes.episode_info import Camera, Column, Encoding, Scalar, Turn

MOST_LETTERS = 2000
"""Of an attribute that is kept; longer ones are models and scenes."""
INSTRUCTION_WORDS = ("language_instruction", "instruction", "language_raw", "task_description")


def group_at(holder: h5py.Group, place: str) -> h5py.Group:
    """A group; the holder itself at the empty place.

    Raises:
        KeyError: if there is none.
    """
    found = holder[place] if place else holder
    if not isinstance(found, h5py.Group):
        raise KeyError(f"`{place}` is no group")
    return found


def dataset_at(holder: h5py.Group, place: str) -> h5py.Dataset:
    """A dataset.

    Raises:
        KeyError: if there is none.
    """
    found = holder[place]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"`{place}` is no dataset")
    return found


def text_of(value: object) -> str | None:
    """A text out of what HDF5 stores for one: text, bytes, or an array that begins with it."""
    if isinstance(value, np.ndarray):
        return text_of(value.reshape(-1)[0]) if value.size else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    text = " ".join(str(value).split()).strip("\"' ") if isinstance(value, str) else ""
    return text or None


def attributes_of(*holders: h5py.Group) -> dict[str, Scalar]:
    """Scalar attributes of groups, later ones over earlier ones."""
    found: dict[str, Scalar] = {}
    for holder in holders:
        for name, value in holder.attrs.items():
            scalar = _scalar(value)
            if scalar is not None:
                found[str(name)] = scalar
    return found


def _scalar(value: object) -> Scalar | None:
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return value if len(value) <= MOST_LETTERS else None
    return value if isinstance(value, bool | int | float) else None


def instruction_of(*holders: h5py.Group) -> str | None:
    """The instruction that a group holds, as an attribute or as a small dataset."""
    for holder in holders:
        for word in INSTRUCTION_WORDS:
            found = text_of(holder.attrs[word]) if word in holder.attrs else None
            entry = holder.get(word)
            if found is None and isinstance(entry, h5py.Dataset) and entry.size:
                found = text_of(entry[()] if entry.ndim == 0 else entry[:1])
            if found:
                return found
    return None


def json_attribute(holder: h5py.Group, name: str) -> dict[str, Any]:
    """An attribute that is a JSON object; empty where it is none."""
    try:
        found = json.loads(text_of(holder.attrs[name]) or "") if name in holder.attrs else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def column_of(group: h5py.Group, place: str) -> Column | None:
    """Numbers of each step; None where there are none at this place."""
    entry = group.get(place)
    if not isinstance(entry, h5py.Dataset) or entry.ndim not in (1, 2) or entry.dtype.kind not in (
        "f", "i", "u", "b",
    ):  # fmt: skip
        return None
    return Column(place=place, size=1 if entry.ndim == 1 else entry.shape[1])


def columns_of(group: h5py.Group, places: Iterable[str]) -> tuple[Column, ...]:
    """Several columns; empty unless all are there."""
    found = [column_of(group, place) for place in places]
    return tuple(c for c in found if c is not None) if all(found) else ()


def camera_of(
    entry: object, *, name: str, place: str, colour: Encoding = "rgb", turn: Turn = "none"
) -> Camera | None:
    """A camera, if this is a dataset of frames; of JPEG frames the first header is read."""
    if not isinstance(entry, h5py.Dataset) or not entry.shape or not entry.shape[0]:
        return None
    if entry.dtype == np.uint8 and entry.ndim == 4 and entry.shape[3] in (3, 4):
        height, width = entry.shape[1:3]
        return Camera(
            name=name, place=place, height=height, width=width, encoding=colour, turn=turn
        )
    if not holds_files(entry):
        return None
    width, height = Image.open(io.BytesIO(file_of(entry[0]))).size
    return Camera(name=name, place=place, height=height, width=width, encoding="jpeg", turn=turn)


def holds_files(entry: h5py.Dataset) -> bool:
    """Whether each step is the bytes of a picture file: of own length, or padded with zeros."""
    if entry.ndim == 2:
        return entry.dtype == np.uint8
    vlen = h5py.check_vlen_dtype(entry.dtype)
    is_bytes = vlen is not None and np.dtype(vlen) == np.uint8
    return entry.ndim == 1 and (is_bytes or h5py.check_string_dtype(entry.dtype) is not None)


def file_of(stored: object) -> bytes:
    """The bytes of one picture file."""
    return stored if isinstance(stored, bytes) else np.asarray(stored, np.uint8).tobytes()


def cameras_in(
    group: h5py.Group,
    prefix: str,
    names: Mapping[str, str],
    *,
    colour: Encoding = "rgb",
    turn: Turn = "none",
) -> tuple[Camera, ...]:
    """All cameras of a group; those of `names` come first and under our names.

    Args:
        group: holds a dataset a camera.
        prefix: of the places, with its slash.
        names: our name by the file's; of two with one name the first takes it.
        colour: of raw frames.
        turn: what makes a frame upright.
    """
    found: dict[str, Camera] = {}
    known = [name for name in names if name in group]
    for word in (*known, *(str(name) for name in group if name not in names)):
        name = names.get(word, _own_name(word))
        name = _own_name(word) if name in found else name
        camera = camera_of(group[word], name=name, place=prefix + word, colour=colour, turn=turn)
        if camera is not None:
            found.setdefault(name, camera)
    return tuple(found.values())


def _own_name(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", word)[:24]
