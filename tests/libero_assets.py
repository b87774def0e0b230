"""Where tests marked `libero` find the assets of the simulator."""

import fcntl
import getpass
import hashlib
import importlib.util
import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from jax_bridge.environments.libero.installation import PACKAGES

SHARED = Path(__file__).resolve().parents[2] / "shared" / "libero"


@pytest.fixture(scope="session")
def libero_assets() -> Path:
    """The assets' folder, as `$VLA_LENS_LIBERO_ASSETS` or unpacked once from beside the repository."""
    missing = [PACKAGES[name] for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"LIBERO is not installed ({', '.join(missing)}): run `make libero`")
    named = os.environ.get("VLA_LENS_LIBERO_ASSETS")
    if named:
        return Path(named)
    archives = sorted(SHARED.glob("*_assets.tar.xz"))
    if not archives:
        pytest.skip("no LIBERO assets: neither $VLA_LENS_LIBERO_ASSETS nor ../shared/libero")
    return unpacked(archives)


@pytest.fixture(autouse=True)
def _assets_variable(request, monkeypatch):
    """Lets tests marked `libero` find the assets as a user's program would."""
    if request.node.get_closest_marker("libero"):
        monkeypatch.setenv("VLA_LENS_LIBERO_ASSETS", str(request.getfixturevalue("libero_assets")))


def unpacked(archives: list[Path]) -> Path:
    """Unpacks into a private folder of the system's temporary one, once for all processes."""
    stamp = "".join(f"{a.name} {a.stat().st_size} {a.stat().st_mtime_ns}" for a in archives)
    name = hashlib.sha256(stamp.encode()).hexdigest()[:12]
    parent = Path(tempfile.gettempdir(), f"vla-lens-tests-{getpass.getuser()}")
    parent.mkdir(mode=0o700, exist_ok=True)
    folder = parent / f"libero-assets-{name}"
    with (parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=parent) as unfinished:
                for archive in archives:
                    with tarfile.open(archive) as tar:
                        tar.extractall(unfinished, filter="data")
                Path(unfinished).rename(folder)
                Path(unfinished).mkdir()
    return folder
