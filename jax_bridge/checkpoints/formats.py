"""The formats by name; a new one is one file and one line here."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from jax_bridge.checkpoints.orbax_folder import is_orbax, open_orbax
from jax_bridge.checkpoints.safetensors_files import is_safetensors, open_safetensors
from jax_bridge.checkpoints.stored_checkpoint import StoredCheckpoint
from jax_bridge.checkpoints.torch_zip import is_torch_zip, open_torch_zip


class Format(NamedTuple):
    """How one format is known and opened."""

    fits: Callable[[pathlib.Path], bool]
    open: Callable[[pathlib.Path], StoredCheckpoint]


FORMATS: dict[str, Format] = {
    "orbax": Format(is_orbax, open_orbax),
    "safetensors": Format(is_safetensors, open_safetensors),
    "torch": Format(is_torch_zip, open_torch_zip),
}
_TORCH_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")


def open_checkpoint(path: str | pathlib.Path, *, trust: bool = False) -> StoredCheckpoint:
    """The table of contents of a checkpoint; no tensor is read, and nothing of a pickle is run.

    Args:
        path: an Orbax folder or the one that holds it, safetensors (a file, or a folder of parts),
            or a file of `torch.save`.
        trust: accept a pickle that names more than tensors and plain containers.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is no checkpoint, is damaged, or names what it should not.
    """
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(
            f"`path` must be a checkpoint, but got {str(path)!r}, which does not exist."
        )
    for name in FORMATS:
        if FORMATS[name].fits(place):
            found = FORMATS[name].open(place)
            break
    else:
        raise ValueError(_unknown(place))
    if found.unsafe and not trust:
        raise ValueError(
            f"`path` must be a checkpoint of tensors alone, but the pickle in {str(path)!r} names "
            f"{', '.join(found.unsafe[:8])}{' and more' if len(found.unsafe) > 8 else ''}. None of "
            "it was run; give --trust to see the tensors all the same."
        )
    return found


def _unknown(place: pathlib.Path) -> str:
    if place.is_dir():
        inside = [p for p in sorted(place.iterdir()) if p.suffix in _TORCH_SUFFIXES]
        if inside:
            return (
                f"`path` must be one file of torch.save, but {str(place)!r} is a folder with "
                f"{', '.join(p.name for p in inside[:8])}. Name the file."
            )
    elif place.suffix in _TORCH_SUFFIXES:
        return (
            f"`path` must be a zip as torch.save writes it since PyTorch 1.6, but {str(place)!r} "
            "is none: it is older, damaged or cut off. Download it again, or save it again with "
            "a newer PyTorch."
        )
    return (
        f"`path` must be one of {', '.join(FORMATS)} (an Orbax folder, *.safetensors, a file of "
        f"torch.save), but got {str(place)!r}, which is none of them."
    )
