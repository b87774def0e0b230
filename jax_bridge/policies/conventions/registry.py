"""The conventions by name; a new one is one file and one line here."""

import importlib

from jax_bridge.policies.conventions.aloha import ALOHA
from jax_bridge.policies.conventions.convention import Convention
from jax_bridge.policies.conventions.droid import DROID
from jax_bridge.policies.conventions.libero import LIBERO
from jax_bridge.policies.conventions.tabletop import TABLETOP

CONVENTIONS: dict[str, Convention] = {
    "libero": LIBERO,
    "droid": DROID,
    "aloha": ALOHA,
    "tabletop": TABLETOP,
}


def get_convention(name: str) -> Convention:
    """A convention by its name, or by the dotted path of one in the user's own module.

    Raises:
        ValueError: if there is no such convention.
    """
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, Convention):
        raise ValueError(
            f"`convention` must be one of {', '.join(CONVENTIONS)}, or the dotted path of a "
            f"Convention of your own, but got {name!r}."
        )
    return found
