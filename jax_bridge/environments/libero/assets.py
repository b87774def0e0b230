"""Finds the folder of meshes, textures and scenes, which no package brings."""

import hashlib
import os
from pathlib import Path

from jax_bridge.environments.libero.installation import package_folder

VARIABLE = "VLA_LENS_LIBERO_ASSETS"

_REMEDY = (
    "Fetch the assets once with `hf download lerobot/libero-assets --repo-type dataset "
    f"--local-dir ~/.cache/libero/assets`, or name their folder with `assets` or ${VARIABLE}."
)


def find_assets(assets: str | None) -> Path:
    """The assets' folder: `assets`, else `$VLA_LENS_LIBERO_ASSETS`, else the package's places.

    A named folder may also be the parent of one called `assets`.

    Raises:
        FileNotFoundError: if the named folder holds no assets, or none is named and none found.
    """
    variable = os.environ.get(VARIABLE)
    if assets is not None:
        return _named(assets, "`assets`")
    if variable:
        return _named(variable, f"${VARIABLE}")
    places = [package_folder() / "assets", Path.home() / ".cache" / "libero" / "assets"]
    for place in places:
        if _holds_assets(place):
            return place
    raise FileNotFoundError(
        f"LIBERO's assets must lie in {' or '.join(map(str, places))}, but there are none. "
        + _REMEDY
    )


def assets_digest(folder: Path) -> str:
    """A short digest of every file's name and size: tells one set of assets from another."""
    files = (path for path in folder.rglob("*") if path.is_file())
    lines = sorted(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _named(folder: str, source: str) -> Path:
    path = Path(folder).expanduser().absolute()
    for place in (path, path / "assets"):
        if _holds_assets(place):
            return place
    raise FileNotFoundError(
        f"{source} must be a folder with LIBERO's `scenes`, but got {folder!r}. {_REMEDY}"
    )


def _holds_assets(folder: Path) -> bool:
    return (folder / "scenes").is_dir()
