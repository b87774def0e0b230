"""What a layout of HDF5 files must say."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import h5py

from jax_bridge.episodes.episode_info import EpisodeInfo


class LayoutError(ValueError):
    """An episode that is not what its layout promises; says what is missing."""


@runtime_checkable
class Layout(Protocol):
    """One way of laying demonstrations out in HDF5 files."""

    @property
    def name(self) -> str:
        """What `--layout` calls it."""
        ...

    def recognises(self, file: h5py.File) -> bool:
        """Whether a file is of this layout, by the names in it."""
        ...

    def places(self, file: h5py.File) -> Iterator[str]:
        """Groups that are an episode each; the empty place is the whole file."""
        ...

    def describe(self, file: h5py.File, path: str, place: str) -> EpisodeInfo:
        """What one episode holds; decodes no frame.

        Raises:
            LayoutError: if something is missing.
            OSError: if the file is damaged here.
        """
        ...
