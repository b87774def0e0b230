"""Whether what speaks openpi's websocket protocol is installed."""

import importlib.util

PACKAGES = ("msgpack", "websockets")


def require_serve_extra(flag: str) -> None:
    """Raises where a package is missing, with the command that installs it.

    Args:
        flag: what the user asked for.

    Raises:
        ValueError: naming the packages.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"`{flag}` needs {' and '.join(missing)}. Install them: pip install 'vla-lens[serve]'."
        )
