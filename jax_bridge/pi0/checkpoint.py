"""Orbax parameter folders as openpi reads and writes them."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jax_bridge.pi0.config import DTYPES, Pi0Config
from jax_bridge.pi0.infer_config import infer_config
from jax_bridge.pi0.parameters import Params, check_params, leaves, unflatten

WRAPPER = "params"
"""openpi keeps the tree under this key."""


def load_params(
    path: str | pathlib.Path, *, dtype: str | None = None, config: Pi0Config | None = None
) -> dict[str, Any]:
    """Reads the parameters of an openpi checkpoint, of its policies or of its training.

    Args:
        path: The local folder `params`, or the one that holds it.
        dtype: `float32` or `bfloat16`; None keeps each parameter's own.
        config: The model that the tree must belong to; None: the one that it comes nearest to.

    Returns:
        A nested dict of jax arrays.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is no Orbax folder, is damaged or not local, or if a parameter is missing,
            extra or misshapen.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, but got {dtype!r}.")
    target = None if dtype is None else jnp.dtype(dtype)
    folder = _params_folder(local_folder(path, name="path"))
    stored = stored_tree(folder)
    if WRAPPER not in stored:
        raise ValueError(
            f"`path` must hold a tree under {WRAPPER!r}, but {folder} has the keys "
            f"{', '.join(sorted(stored)) or 'none'}. Choose an openpi `params` folder."
        )
    item = {WRAPPER: stored[WRAPPER]}
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray, dtype=target), item)
    arguments = ocp.args.PyTreeRestore(item=item, restore_args=how)
    with _naming_damage(folder), ocp.PyTreeCheckpointer() as checkpointer:
        params = strip_value(checkpointer.restore(folder, args=arguments)[WRAPPER])
    if config is None:
        infer_config(params)
    else:
        check_params(params, config)
    return jax.tree.map(jnp.asarray, params)


def stored_tree(folder: pathlib.Path) -> Mapping[str, Any]:
    """What an Orbax folder holds: a leaf's shape and type in the place of its array.

    Raises:
        ValueError: if that cannot be read.
    """
    with _naming_damage(folder), ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.metadata(folder.absolute()).item_metadata.tree


@contextlib.contextmanager
def _naming_damage(folder: pathlib.Path) -> Iterator[None]:
    """Says in one sentence which folder Orbax could not read."""
    try:
        yield
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must be a whole Orbax folder, but {str(folder)!r} could not be read "
            f"({type(error).__name__}: {str(error)[:200]}). Copy or download it again."
        ) from error


def strip_value(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the last key `value` that flax's training state puts on every leaf.

    Only if all leaves have it: SigLIP's attention has a part of that name.
    """
    flat = dict(leaves(tree))
    if all(path.rsplit("/", 1)[-1] == "value" for path in flat):
        flat = {path.removesuffix("/value"): leaf for path, leaf in flat.items()}
    return unflatten(flat)


def save_params(path: str | pathlib.Path, params: Params) -> None:
    """Writes a `params` folder that openpi's policies can load.

    Args:
        path: The folder to make; it must not exist.
        params: The tree.

    Raises:
        ValueError: if the folder exists.
    """
    folder = pathlib.Path(path).absolute()
    if folder.exists():
        raise ValueError(f"`path` must not exist, but got {str(folder)!r}. Choose another folder.")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(folder, {WRAPPER: dict(params)})


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
