"""Layouts by name; a new one is one file and one line here."""

import h5py

from jax_bridge.episodes.layout import Layout
from jax_bridge.episodes.layouts.aloha import Aloha
from jax_bridge.episodes.layouts.calvin import CALVIN
from jax_bridge.episodes.layouts.droid import Droid
from jax_bridge.episodes.layouts.libero import Libero
from jax_bridge.episodes.layouts.mobile_vla import MobileVla
from jax_bridge.episodes.layouts.robomimic import Robomimic

AUTO = "auto"
LAYOUTS: tuple[Layout, ...] = (Libero(), Robomimic(), Aloha(), Droid(), MobileVla())
"""In the order in which they are tried."""
NAMES: tuple[str, ...] = (AUTO, *(layout.name for layout in LAYOUTS), CALVIN)


def check_layout(name: str) -> None:
    """Refuses unknown names.

    Raises:
        ValueError: if there is no such layout.
    """
    if name not in NAMES:
        raise ValueError(f"`layout` must be one of {', '.join(NAMES)}, but got {name!r}.")


def layout_of(file: h5py.File, name: str) -> Layout | None:
    """The layout of this name, or the first that recognises the file; None where none does."""
    for layout in LAYOUTS:
        if name in (AUTO, layout.name) and layout.recognises(file):
            return layout
    return None
