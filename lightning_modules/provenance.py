"""Where a result comes from: versions, machine, data and command."""

import importlib.metadata
import platform
from typing import Any

PACKAGES = (
    "vla-lens", "torch", "lightning", "torchmetrics", "webdataset", "numpy", "pyarrow",
    "safetensors", "jsonargparse", "matplotlib",
)  # fmt: skip
"""The packages whose version can change a probe's numbers or files."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of `PACKAGES`; one that is not installed is said to be so."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def provenance(*, command: str, data: dict[str, Any], device: str) -> dict[str, Any]:
    """What a run folder says about how it came to be.

    Args:
        command: as typed.
        data: what the data module says of its data and selection.
        device: where it ran, `cpu` or `cuda:0`.
    """
    machine = f"{platform.system()} {platform.machine()}, {device}"
    return {"command": command, "machine": machine, "versions": package_versions(), "data": data}
