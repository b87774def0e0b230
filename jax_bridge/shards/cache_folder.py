"""Where things are kept that can be made again, and shards that wait to be uploaded."""

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """`$VLA_LENS_CACHE`, else the user's cache folder."""
    given = os.environ.get("VLA_LENS_CACHE")
    if given:
        return pathlib.Path(given)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / (
        "vla-lens"
    )
