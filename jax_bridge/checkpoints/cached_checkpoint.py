"""A remote openpi checkpoint as a local folder: fetched once, kept, and taken from there after."""

import contextlib
import hashlib
import pathlib

from jax_bridge.checkpoints.byte_progress import byte_progress
from jax_bridge.checkpoints.download import default_folder, download, plan_download
from jax_bridge.checkpoints.download_record import load_record
from jax_bridge.shards.cache_folder import cache_folder

NEEDED = ("params/*", "assets/*", "_CHECKPOINT_METADATA")
"""What a policy reads; a training's `train_state` is larger and stays where it is."""


def cached_checkpoint(address: str) -> pathlib.Path:
    """The local copy of a checkpoint; asks no server once all of it is here.

    A training step's folder never changes, so what is complete is not compared again. Delete the
    folder, or `vla-lens checkpoint download` it to a place of your own, to have it anew.

    Raises:
        FileNotFoundError: if there is no `params` folder at the address.
        OSError: if the server refuses; the same call goes on later.
        ValueError: if nothing opens such an address.
    """
    address = address.rstrip("/").removesuffix("/params")
    folder = local_copy(address)
    with contextlib.suppress(FileNotFoundError):
        if load_record(folder).complete:
            return folder
    plan = plan_download(address, folder, include=NEEDED)
    if "params/_METADATA" not in plan.files:
        raise FileNotFoundError(
            "`checkpoint` must be an address with an Orbax folder params/ (as openpi writes it), "
            f"but got {address!r}, which holds {', '.join(sorted(plan.files)[:5])}. Give the "
            "folder of one training step."
        )
    with byte_progress(f"download {address}", plan.size) as on_bytes:
        download(plan, on_bytes)
    return folder


def local_copy(address: str) -> pathlib.Path:
    """Where the copy of an address lies, or will lie."""
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    return cache_folder() / "checkpoints" / f"{default_folder(address)[-80:]}-{digest}"
