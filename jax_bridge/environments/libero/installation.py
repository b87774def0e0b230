"""Imports the simulator's packages without their questions, downloads and noise."""

import atexit
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import yaml

from jax_bridge.environments.libero.graphics import choose_backend

PACKAGES: dict[str, str] = {
    "mujoco": "mujoco",
    "robosuite": "robosuite",
    "bddl": "bddl",
    "libero": "hf-libero",
}
"""What must be installed: module to distribution."""


def check_installed() -> None:
    """Makes sure that the simulator's packages are there, without importing them.

    Raises:
        FileNotFoundError: if one is missing.
    """
    missing = [PACKAGES[name] for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise FileNotFoundError(
            f"LIBERO must be installed, but these packages are missing: {', '.join(missing)}. "
            "Run `make libero`."
        )


def versions() -> dict[str, str]:
    """Version of each of the simulator's packages, by distribution."""
    return {name: importlib.metadata.version(name) for name in PACKAGES.values()}


def package_folder() -> Path:
    """Folder of the package `libero.libero`, found without running its code."""
    spec = importlib.util.find_spec("libero")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "libero"


@functools.cache
def import_libero() -> ModuleType:
    """The package `libero.libero`; light (neither simulator nor torch).

    It asks on stdin for a folder unless it finds its configuration, so one that nobody else
    sees is written first; a configuration named by `$LIBERO_CONFIG_PATH` is respected.
    """
    check_installed()
    folder = os.environ.get("LIBERO_CONFIG_PATH")
    if folder is None or not Path(folder, "config.yaml").is_file():
        os.environ["LIBERO_CONFIG_PATH"] = _private_configuration()
    return importlib.import_module("libero.libero")


@functools.cache
def import_simulator() -> ModuleType:
    """The module of LIBERO's environments, with robosuite and mujoco behind it."""
    import_libero()
    choose_backend()
    with _quiet():
        return importlib.import_module("libero.libero.envs.env_wrapper")


def bddl_file(suite: str, task: str) -> Path:
    """Where a task's description lies."""
    return Path(import_libero().get_libero_path("bddl_files")) / suite / f"{task}.bddl"


def init_file(suite: str, task: str) -> Path:
    """Where a task's initial states lie."""
    return Path(import_libero().get_libero_path("init_states")) / suite / f"{task}.pruned_init"


def _private_configuration() -> str:
    """A folder with a configuration that names the package's own; removed at exit."""
    folder = tempfile.mkdtemp(prefix="vla-lens-libero-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = package_folder()
    entries = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    text = yaml.safe_dump({key: str(path) for key, path in entries.items()})
    Path(folder, "config.yaml").write_text(text, encoding="utf-8")
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps out what importing robosuite and LIBERO says, and their change of filters.

    robosuite 1.4.0 calls the deprecated `Logger.warn` to recommend a private macro file;
    LIBERO sets a process-wide filter for DeprecationWarning.
    """
    logger = logging.getLogger("robosuite_logs")
    logger.addFilter(_speaks_not_of_macros)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.removeFilter(_speaks_not_of_macros)


def _speaks_not_of_macros(record: logging.LogRecord) -> bool:
    return "macro" not in record.getMessage()
