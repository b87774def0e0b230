"""LIBERO's suites: their tasks in the benchmark's order, and the usual step limits."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from jax_bridge.environments.environment import Task
from jax_bridge.environments.libero.installation import package_folder

MAX_STEPS: dict[str, int] = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Environment steps after settling that openpi's evaluation allows, by suite.

Source: openpi, examples/libero/main.py (the longest demonstration of each suite, rounded up).
"""

_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")


def check_suite(suite: str) -> None:
    """Refuses a name that is no suite.

    Raises:
        ValueError: if there is no such suite.
    """
    if suite not in MAX_STEPS:
        raise ValueError(f"`suite` must be one of {', '.join(MAX_STEPS)}, but got {suite!r}.")


def suite_tasks(suite: str) -> tuple[Task, ...]:
    """All tasks of a suite, in the benchmark's own order (its task order 0)."""
    return tuple(
        Task(suite=suite, task_id=number, name=name, instruction=instruction_of(name))
        for number, name in enumerate(_task_map()[suite])
    )


def instruction_of(name: str) -> str:
    """A task's name in words, without the scene that the longer suites put before it."""
    return _SCENE.sub("", name).replace("_", " ")


def _task_map() -> dict[str, list[str]]:
    """The package's own table; read alone, as the module around it imports torch."""
    path = package_folder() / "benchmark" / "libero_suite_task_map.py"
    return _load_file(path).libero_task_map


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_vla_lens_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
