"""Where training starts: random weights, an openpi checkpoint, or PaliGemma's own file."""

import pathlib
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS, group_of
from jax_bridge.pi0 import Pi0, Pi0Config, load_params
from jax_bridge.pi0.parameters import leaves, param_shapes, unflatten
from jax_bridge.policies.checkpoint_folder import checkpoint_folder

RANDOM = "random"
PALIGEMMA = "PaliGemma"
"""Where its parameters stand in openpi's tree; its own file says `params`."""


def starting_weights(weights: str, config: Pi0Config, seed: int) -> dict[str, Any]:
    """Parameters in float32.

    Args:
        weights: `random`; a checkpoint's folder, as openpi writes it; or PaliGemma's `.npz`, whose
            action expert is then random.
        config: the model that they must fit.
        seed: of what is random.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: if they do not fit the model, or cannot be read.
    """
    plain = Pi0Config(**{**_fields(config), "dtype": "float32"})
    if weights == RANDOM:
        return Pi0(plain).init(seed)
    if weights.endswith(".npz"):
        return _with_paligemma(pathlib.Path(weights).expanduser(), plain, seed)
    return load_params(checkpoint_folder(weights) / "params", dtype="float32", config=plain)


def _fields(config: Pi0Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def _with_paligemma(path: pathlib.Path, config: Pi0Config, seed: int) -> dict[str, Any]:
    """Random parameters whose backbone is PaliGemma's."""
    shapes = param_shapes(config)
    found = _read_npz(path)
    wanted = [name for name in shapes if group_of(name) in BACKBONE_GROUPS]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"`weights` must hold PaliGemma's parameters, but {str(path)!r} has no "
            f"{', '.join(missing[:3])} ({len(missing)} of {len(wanted)} are missing). Give "
            "PaliGemma's JAX file (pt_224.npz), or fit the sizes of the model to it."
        )
    for name in wanted:
        if found[name].shape != shapes[name]:
            raise ValueError(
                f"`weights` must fit the model, but {name} has shape {list(found[name].shape)} "
                f"instead of {list(shapes[name])}. Choose the preset that has PaliGemma's sizes "
                "(pi05), or another file."
            )
    flat = dict(leaves(Pi0(config).init(seed)))
    flat |= {name: jnp.asarray(found[name], jnp.float32) for name in wanted}
    return unflatten(flat)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Leaves by openpi's path; nothing is unpickled."""
    if not path.is_file():
        raise FileNotFoundError(
            f"`weights` must be `{RANDOM}`, a checkpoint's folder or PaliGemma's .npz, but got "
            f"{str(path)!r}, which does not exist."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                f"{PALIGEMMA}/{name.removeprefix('params/')}": _plain(file[name])
                for name in file.files
            }
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise ValueError(
            f"`weights` must be a NumPy archive of plain arrays, but {str(path)!r} cannot be read "
            f"({error}). Download it again."
        ) from error


def _plain(array: np.ndarray) -> np.ndarray:
    """NumPy stores bfloat16 as two bytes without a meaning."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
