"""What lies beside the checkpoints: settings, versions, data; and whether a run may go on."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jax_bridge.ki.training.run_config import TrainSettings
from jax_bridge.ki.training.stream import DataFacts

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
MODEL_FILE = "model.json"
PACKAGES = (
    "vla-lens", "jax", "jaxlib", "optax", "orbax-checkpoint", "numpy", "grain", "tokenizers",
)  # fmt: skip
SHOWN = 6


def open_run(folder: pathlib.Path, settings: TrainSettings, facts: DataFacts) -> None:
    """Writes `run.json`, or checks that the run that lies there is this one.

    Raises:
        ValueError: if another run lies there, with the difference.
    """
    bound = {"settings": settings.binding(), "data": dict(facts.description)}
    bound = json.loads(json.dumps(bound))
    path = folder / RUN_FILE
    if path.exists():
        before = _read(path)
        differing = list(differences(before.get("bound", {}), bound))
        if differing:
            more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            raise ValueError(
                f"`out` must be a new folder or hold this run, but {str(folder)!r} holds one with "
                f"{'; '.join(differing[:SHOWN])}{more}. Choose another folder, or these settings."
            )
        return
    if folder.is_dir() and (folder / CHECKPOINTS).is_dir():
        raise ValueError(
            f"`out` must be a new folder or hold a run, but {str(folder)!r} has checkpoints and no "
            f"{RUN_FILE}. Choose another folder."
        )
    if jax.process_index() == 0:
        _write(path, {"bound": bound, "settings": settings.to_json(), **surroundings()})


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"`out` must hold a readable {RUN_FILE}, but {str(path)!r} is not ({error})."
        ) from error
    return found if isinstance(found, dict) else {}


def _write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_suffix(".part")
    spare.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(spare, path)


def surroundings() -> dict[str, Any]:
    """Versions and devices."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two trees differ, in words: `run.seed 0 instead of 1`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(set(before) | set(now)):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path} {before!r} instead of {now!r}"


def asset_files(settings: TrainSettings, facts: DataFacts) -> dict[str, bytes]:
    """What lies in a checkpoint's `assets/`: the data's files and `model.json`."""
    entry = {"config": settings.model.to_json(), "policy": dict(facts.policy)}
    text = json.dumps(entry, indent=1) + "\n"
    return {**facts.assets, MODEL_FILE: text.encode()}
