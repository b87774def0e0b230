"""Reading a torch checkpoint's tensors without running anything that it holds."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONTAINERS = ("state_dict", "model_state_dict", "module")
"""Entries under which trainers keep the tensors."""


def read_tensors(path: str, *, trust: bool = False) -> dict[str, Tensor]:
    """All tensors of a checkpoint, by name, mapped into memory where the file allows it.

    Args:
        path: a file of `torch.save`, or a safetensors file.
        trust: also read files that hold other things than tensors and plain values. Their pickle
            is then executed, which can do anything.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, or would run code; names what it would import.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"`checkpoint` must be a file, but {path} is not there. `vla-lens checkpoint download` "
            "fetches one."
        )
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    content = _load(file, trust)
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    tensors = content if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        held = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"`checkpoint` must hold tensors by name, but {path} holds {held}.")
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(_not_whole(file, error)) from error


def _load(file: Path, trust: bool) -> Any:
    try:
        # A file of the old format cannot be mapped.
        mapped = zipfile.is_zipfile(file)
        return torch.load(file, map_location="cpu", mmap=mapped, weights_only=not trust)
    except pickle.UnpicklingError as error:
        names = _unsafe_names(file)
        raise ValueError(
            f"`checkpoint` must hold tensors and plain values, but {file} would also import "
            f"{names}. Where you trust whoever made it, say `trust: true`."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(_not_whole(file, error)) from error


def _not_whole(file: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"`checkpoint` must be whole, but {file} cannot be read: {reason}"


def _unsafe_names(file: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an old or odd file: torch cannot list them
        return "what torch does not allow"
    return ", ".join(sorted(names)[:8]) or "what torch does not allow"
