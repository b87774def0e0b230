"""An openpi checkpoint's folder: where its parameters and statistics lie, and its architecture.

`CHECKPOINT/params/` is an Orbax folder, `CHECKPOINT/assets/{asset_id}/norm_stats.json` holds the
statistics of the data that it was trained on.
"""

import pathlib

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.checkpoints.cached_checkpoint import cached_checkpoint
from jax_bridge.pi0.config import PRESETS, Pi0Config
from jax_bridge.pi0.parameters import Shapes, param_shapes, refuse_pi0_fast
from jax_bridge.shards.remote.address import is_address

STATISTICS_FILE = "norm_stats.json"


def checkpoint_folder(address: str) -> pathlib.Path:
    """The local folder of a checkpoint; its `params` folder may be named instead.

    An address such as `gs://bucket/checkpoint` is fetched into the cache first, once.

    Raises:
        FileNotFoundError: if there is none, or it holds no parameters.
        OSError: if a server refuses.
        ValueError: if nothing opens such an address.
    """
    if is_address(address):
        return cached_checkpoint(address)
    folder = pathlib.Path(address).expanduser()
    if folder.name == "params" and (folder / "_METADATA").is_file():
        return folder.parent
    if not (folder / "params" / "_METADATA").is_file():
        held = "which does not exist"
        if folder.is_dir():
            names = sorted(entry.name for entry in folder.iterdir())
            held = f"which holds {', '.join(names[:8]) or 'nothing'}"
        raise FileNotFoundError(
            "`checkpoint` must be a folder with an Orbax folder params/ (as openpi writes it), but "
            f"got {address!r}, {held}. Give the folder of one training step."
        )
    return folder


def find_norm_stats(folder: pathlib.Path, asset_id: str) -> str:
    """Path of a checkpoint's statistics: those of `asset_id`, or else the only ones there.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if there are several, and none of `asset_id`.
    """
    assets = folder / "assets"
    wanted = assets / asset_id / STATISTICS_FILE
    if wanted.is_file():
        return str(wanted)
    found = sorted(assets.rglob(STATISTICS_FILE))
    if not found:
        raise FileNotFoundError(
            f"`checkpoint` must hold assets/**/{STATISTICS_FILE}, but got {str(folder)!r} without. "
            "Give the file by --policy.norm_stats FILE, or --policy.norm_stats none to leave "
            "states and actions as they are."
        )
    if len(found) > 1:
        ids = ", ".join(str(path.parent.relative_to(assets)) for path in found)
        raise ValueError(
            f"`checkpoint` must hold the statistics of {asset_id!r}, or of one data set only, but "
            f"got {ids}. Choose one by --policy.norm_stats FILE."
        )
    return str(found[0])


def stored_shapes(folder: pathlib.Path) -> Shapes:
    """Shape of every parameter in a checkpoint, by path; reads no parameter.

    Raises:
        ValueError: if the folder is damaged.
    """
    tensors = open_checkpoint(folder / "params").tensors
    return {name: tensor.shape for name, tensor in tensors.items()}


def find_preset(folder: pathlib.Path) -> str:
    """The preset whose parameters have the names and shapes of a checkpoint's.

    Raises:
        ValueError: if there is none.
    """
    stored = stored_shapes(folder)
    for name in PRESETS:
        if param_shapes(Pi0Config.preset(name)) == stored:
            return name
    refuse_pi0_fast(stored, "checkpoint")
    raise ValueError(
        f"`preset` must be given for {str(folder)!r}: its {len(stored)} parameters fit none of "
        f"{', '.join(PRESETS)} exactly. Say --policy.preset NAME to see what differs."
    )
