"""`open_episode`: actions, state and frames of one episode, decoded when they are asked for.

Letters: t steps of the episode; n chosen steps; h, w height and width; a action; s state.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from jax_bridge.episodes.episode_info import Column, EpisodeInfo
from jax_bridge.episodes.failures import EpisodeReadError, why_unreadable
from jax_bridge.episodes.frames import upright
from jax_bridge.episodes.hdf5_values import dataset_at, group_at
from jax_bridge.episodes.layouts.calvin import CALVIN, step_file

LOCKING = "best-effort"
"""Respect the lock of a program that writes; do without where the file system has none."""


@runtime_checkable
class EpisodeReader(Protocol):
    """An open episode; use it in a `with` block."""

    info: EpisodeInfo

    def actions(self) -> Float32[np.ndarray, "t a"]:
        """All actions, in robot units.

        Raises:
            EpisodeReadError: if they cannot be read or are not finite.
        """
        ...

    def state(self) -> Float32[np.ndarray, "t s"] | None:
        """The robot's state at every step; None where it was not recorded.

        Raises:
            EpisodeReadError: if it cannot be read or is not finite.
        """
        ...

    def frames(self, camera: str, steps: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """Upright frames of some steps, red first.

        Raises:
            ValueError: if there is no such camera or step.
            EpisodeReadError: if a frame cannot be read.
        """
        ...

    def __enter__(self) -> "EpisodeReader":
        """Itself."""
        ...

    def __exit__(self, *error: Any) -> None:
        """Closes the file."""
        ...


def open_episode(info: EpisodeInfo) -> EpisodeReader:
    """Opens one episode.

    Raises:
        EpisodeReadError: if its file cannot be opened.
    """
    return CalvinEpisode(info) if info.layout == CALVIN else Hdf5Episode(info)


class Hdf5Episode:
    """An episode in an HDF5 file."""

    def __init__(self, info: EpisodeInfo) -> None:
        self.info = info
        with _explained(info, "the file"):
            self._file = h5py.File(info.path, "r", locking=LOCKING)
            self._group = group_at(self._file, info.place)

    def actions(self) -> Float32[np.ndarray, "t a"]:
        """See `EpisodeReader`."""
        return self._columns(self.info.actions, "actions")

    def state(self) -> Float32[np.ndarray, "t s"] | None:
        """See `EpisodeReader`."""
        return self._columns(self.info.state, "state") if self.info.state else None

    def frames(self, camera: str, steps: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """See `EpisodeReader`."""
        chosen = self.info.camera(camera)
        _check_steps(steps, self.info.length)
        with _explained(self.info, f"frames of {chosen.place}"):
            entry = dataset_at(self._group, chosen.place)
            first, count = (steps[0], len(steps)) if len(steps) else (0, 0)
            in_a_row = list(steps) == list(range(first, first + count))
            stored = entry[first : first + count] if in_a_row else [entry[i] for i in steps]
            if len(stored) != len(steps):
                raise ValueError(f"there are {len(entry)} for {self.info.length} steps")
            return upright(stored, chosen)

    def _columns(self, columns: Sequence[Column], what: str) -> Float32[np.ndarray, "t d"]:
        with _explained(self.info, what):
            parts = [_numbers(dataset_at(self._group, c.place), c) for c in columns]
            values = np.concatenate(parts, axis=1)
        return _checked(values[: self.info.length], self.info, what)

    def __enter__(self) -> "Hdf5Episode":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()


class CalvinEpisode:
    """A span of CALVIN's step files."""

    def __init__(self, info: EpisodeInfo) -> None:
        self.info = info
        self._folder = Path(info.path)
        self._first = int(info.place.split("-")[0])

    def actions(self) -> Float32[np.ndarray, "t a"]:
        """See `EpisodeReader`."""
        return self._column(self.info.actions[0], "actions")

    def state(self) -> Float32[np.ndarray, "t s"] | None:
        """See `EpisodeReader`."""
        return self._column(self.info.state[0], "state") if self.info.state else None

    def frames(self, camera: str, steps: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        """See `EpisodeReader`."""
        chosen = self.info.camera(camera)
        _check_steps(steps, self.info.length)
        with _explained(self.info, f"frames of {chosen.place}"):
            return upright([self._step(i, chosen.place) for i in steps], chosen)

    def _column(self, column: Column, what: str) -> Float32[np.ndarray, "t d"]:
        with _explained(self.info, what):
            rows = [self._step(i, column.place) for i in range(self.info.length)]
            values = np.stack(rows).astype(np.float64)
        return _checked(values, self.info, what)

    def _step(self, number: int, name: str) -> np.ndarray:
        path = step_file(self._folder, self._first + number)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]

    def __enter__(self) -> "CalvinEpisode":
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing stays open between two reads."""


@contextlib.contextmanager
def _explained(info: EpisodeInfo, what: str) -> Iterator[None]:
    """Whatever a file's driver raises, with the place."""
    try:
        yield
    except EpisodeReadError:
        raise
    except Exception as error:
        reason = why_unreadable(error, info.path)
        raise EpisodeReadError(f"{info.source}: {what} cannot be read ({reason}).") from error


def _check_steps(steps: Sequence[int], length: int) -> None:
    for step in steps:
        if not 0 <= step < length:
            raise ValueError(f"`steps` must lie in [0, {length}), but got {step}.")


def _numbers(entry: h5py.Dataset, column: Column) -> Float64[np.ndarray, "t d"]:
    values = np.asarray(entry[:], np.float64).reshape(len(entry), -1)
    return axis_angles(values) if column.form == "axis-angle" else values


def axis_angles(quaternions: Float64[np.ndarray, "t 4"]) -> Float64[np.ndarray, "t 3"]:
    """Rotation axis times angle (radians, 0 to 2 pi) of quaternions x, y, z, w.

    The sign of a quaternion is kept, so that angles beyond pi occur, as where robots are watched.

    Source: robosuite, utils/transform_utils.py `quat2axisangle`.
    """
    w = np.clip(quaternions[:, 3:], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    safe = np.where(sine == 0.0, 1.0, sine)
    return np.where(sine == 0.0, 0.0, quaternions[:, :3] * (2.0 * np.arccos(w) / safe))


def _checked(
    values: Float64[np.ndarray, "t d"], info: EpisodeInfo, what: str
) -> Float32[np.ndarray, "t d"]:
    if len(values) != info.length:
        raise EpisodeReadError(
            f"{info.source}: {what} has {len(values)} steps, but the actions {info.length}."
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is said
        rounded = values.astype(np.float32)
    good = np.isfinite(rounded).all(axis=1)
    if not good.all():
        raise EpisodeReadError(
            f"{info.source}: {what} is NaN or infinite at step {int(np.argmin(good))}."
        )
    return rounded
