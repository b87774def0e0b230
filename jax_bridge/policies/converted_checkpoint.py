"""A PyTorch π0 as openpi's folder: `params/` in Orbax, and the statistics where it has some.

Statistics come from `assets/**/norm_stats.json` beside the weights (openpi's own port), from the
normaliser that lerobot stores beside them, or from the buffers of older lerobot weights.
"""

import dataclasses
import json
import pathlib
import shutil
import tempfile

import numpy as np

from jax_bridge.checkpoints import StoredCheckpoint, open_checkpoint
from jax_bridge.pi0.checkpoint import save_params
from jax_bridge.pi0.from_torch import Allocate, Converted, convert
from jax_bridge.policies.checkpoint_folder import STATISTICS_FILE

ASSET_ID = "lerobot"
"""Folder of statistics that lerobot had kept."""
_NORMALISER = "policy_preprocessor*normalizer*.safetensors"
_KEYS: dict[str, tuple[str, ...]] = {
    "state": ("observation.state.{}", "normalize_inputs.buffer_observation_state.{}"),
    "actions": ("action.{}", "unnormalize_outputs.buffer_action.{}"),
}
"""Names of a statistic, newer ones first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedFolder:
    """What was written."""

    converted: Converted
    statistics: list[str]
    """Files of statistics, below the folder."""


def convert_checkpoint(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    dtype: str | None = None,
    trust: bool = False,
) -> ConvertedFolder:
    """Writes PyTorch's π0 or π0.5 as a folder that `--policy.checkpoint` takes.

    The parameters wait in files without a name beside `out`, so that memory holds one block of them
    and what the kernel likes to keep; the disk needs room for them twice.

    Args:
        path: a file or folder of safetensors, or a file of torch.save.
        out: the folder to make.
        dtype: `float32` or `bfloat16`; None keeps each parameter's own.
        trust: accept a pickle that names more than tensors; nothing of it is run.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is another model, or `out` holds something.
    """
    folder = pathlib.Path(out).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"`out` must be empty or new, but got {str(out)!r}. Choose another one.")
    checkpoint = open_checkpoint(_weights(pathlib.Path(path).expanduser()), trust=trust)
    converted = convert(checkpoint, dtype=dtype, allocate=_in_files(folder))
    # The parameters last: a folder without them is no checkpoint.
    statistics = _copied(checkpoint, folder) or _kept(checkpoint, folder)
    save_params(folder / "params", converted.params)
    return ConvertedFolder(converted=converted, statistics=statistics)


def _in_files(out: pathlib.Path) -> Allocate:
    """Arrays in files that go with them, on the disk where `out` will be."""
    near = next(place for place in out.absolute().parents if place.is_dir())

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        with tempfile.TemporaryFile(dir=near) as file:
            return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray)

    return allocate


def _weights(path: pathlib.Path) -> pathlib.Path:
    """The file of weights in a folder that lerobot has saved: others there are no weights."""
    inside = path / "model.safetensors"
    return inside if inside.is_file() else path


def _beside(checkpoint: StoredCheckpoint) -> pathlib.Path:
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent


def _copied(checkpoint: StoredCheckpoint, folder: pathlib.Path) -> list[str]:
    """Copies the statistics of openpi."""
    source = _beside(checkpoint) / "assets"
    written = []
    for file in sorted(source.rglob(STATISTICS_FILE)):
        place = pathlib.Path("assets") / file.relative_to(source)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)
        written.append(str(place))
    return written


def _kept(checkpoint: StoredCheckpoint, folder: pathlib.Path) -> list[str]:
    """Writes the statistics of lerobot in the form of openpi."""
    normalisers = sorted(_beside(checkpoint).glob(_NORMALISER))
    sources = [open_checkpoint(path) for path in normalisers] + [checkpoint]
    found = {name: _rows(sources, patterns) for name, patterns in _KEYS.items()}
    if not all(found.values()):
        return []
    place = pathlib.Path("assets") / ASSET_ID / STATISTICS_FILE
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(json.dumps({"norm_stats": found}, indent=1))
    return [str(place)]


def _rows(sources: list[StoredCheckpoint], patterns: tuple[str, ...]) -> dict[str, list[float]]:
    """Mean, deviation and percentiles of one quantity; empty where there is no finite mean."""
    for source in sources:
        for pattern in patterns:
            rows = {
                key: source.read(pattern.format(key)).astype(np.float64)
                for key in ("mean", "std", "q01", "q99")
                if pattern.format(key) in source.tensors
            }
            # Untrained buffers are infinite: they say that nothing was kept.
            if {"mean", "std"} <= set(rows) and all(np.isfinite(r).all() for r in rows.values()):
                return {key: row.ravel().tolist() for key, row in rows.items()}
    return {}
