"""Orbax parameter folders as openpi reads and writes them."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jax_bridge.checkpoints.orbax_folder import WRAPPER, OrbaxFolder
from jax_bridge.checkpoints.stored_checkpoint import dtype_of
from jax_bridge.pi0.config import DTYPES, Pi0Config
from jax_bridge.pi0.infer_config import infer_config
from jax_bridge.pi0.parameters import Params, check_params, unflatten

ALIGNMENT = 64
"""Bytes; what XLA asks of an array that it takes over."""
CHUNK_BYTES = 64 * 2**20
"""Size of a stored piece of a large parameter, so that reading a slice decodes little more."""


def load_params(
    path: str | pathlib.Path,
    *,
    dtype: str | None = None,
    config: Pi0Config | None = None,
    sharding: Callable[[str, tuple[int, ...]], jax.sharding.Sharding] | None = None,
) -> dict[str, Any]:
    """Reads the parameters of an openpi checkpoint, of its policies or of its training.

    Leaves are read and cast in slices, the largest first, so that loading takes little more memory
    than the result: a float32 checkpoint is never whole in memory beside its bfloat16 copy.

    Args:
        path: The local folder `params`, or the one that holds it.
        dtype: `float32` or `bfloat16`; None keeps each parameter's own.
        config: The model that the tree must belong to; None: the one that it comes nearest to.
        sharding: Where each leaf goes, by its path and shape, on the devices of this host; None:
            all on the first one.

    Returns:
        A nested dict of jax arrays.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is no Orbax folder, is damaged or not local, or if a parameter is missing,
            extra or misshapen.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, but got {dtype!r}.")
    stored = OrbaxFolder(_params_folder(local_folder(path, name="path")))
    if not stored.wrapped:
        tops = sorted({name.split("/")[0] for name in stored.tensors})
        raise ValueError(
            f"`path` must hold a tree under {WRAPPER!r}, but {stored.path} has the keys "
            f"{', '.join(tops) or 'none'}. Choose an openpi `params` folder."
        )
    shapes = {name: np.broadcast_to(np.float32(0), t.shape) for name, t in stored.tensors.items()}
    if config is None:
        infer_config(unflatten(shapes))
    else:
        check_params(unflatten(shapes), config)
    flat: dict[str, jax.Array] = {}
    for name in sorted(stored.tensors, key=lambda name: -stored.tensors[name].nbytes):
        leaf = aligned_array(
            stored.tensors[name].shape, dtype_of(dtype or stored.tensors[name].dtype)
        )
        stored.fill(name, leaf)
        flat[name] = jax.device_put(leaf, sharding and sharding(name, leaf.shape))
    return unflatten(flat)


def aligned_array(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array at an address that lets the CPU's jax arrays take it over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def save_params(path: str | pathlib.Path, params: Params) -> None:
    """Writes a `params` folder that openpi's policies can load.

    Args:
        path: The folder to make; it must not exist.
        params: The tree. Numpy leaves that jax takes over as they are, such as `aligned_array`
            makes, are not copied.

    Raises:
        ValueError: if the folder exists.
    """
    folder = pathlib.Path(path).absolute()
    if folder.exists():
        raise ValueError(f"`path` must not exist, but got {str(folder)!r}. Choose another folder.")
    with ocp.PyTreeCheckpointer() as checkpointer:
        # Orbax copies all numpy arrays before it writes the first; jax's it does not.
        item = {WRAPPER: jax.tree.map(jax.device_put, dict(params))}
        how = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), item)
        checkpointer.save(folder, args=ocp.args.PyTreeSave(item, save_args=how))


def local_folder(address: str | pathlib.Path, *, name: str) -> pathlib.Path:
    """The path of a folder of this machine, `~` resolved.

    Args:
        address: The path.
        name: The argument's name, for the error.

    Raises:
        ValueError: if it is an address of another place.
    """
    if "://" in str(address):
        raise ValueError(
            f"`{name}` must be a local folder, but got {address!r}. Bring it here with `vla-lens "
            "checkpoint download`, and give the folder that holds params/."
        )
    return pathlib.Path(address).expanduser()


def _params_folder(path: pathlib.Path) -> pathlib.Path:
    """The Orbax folder at or under a path."""
    path = path.absolute()
    if not path.exists():
        raise FileNotFoundError(
            f"`path` must be a checkpoint's `params` folder, but got {str(path)!r}, which does "
            "not exist."
        )
    for folder in (path, path / WRAPPER):
        if (folder / "_METADATA").is_file():
            return folder
    raise ValueError(
        f"`path` must be an Orbax folder (one with a file `_METADATA`), but got {str(path)!r}. "
        "Choose the `params` folder of an openpi checkpoint."
    )
