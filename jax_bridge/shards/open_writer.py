"""`open_writer`: a writer for a folder or for an address."""

import os
from collections.abc import Callable

from jax_bridge.shards.dataset_info import DatasetInfo
from jax_bridge.shards.remote.address import is_address
from jax_bridge.shards.remote.remote_writer import RemoteEpisodeWriter
from jax_bridge.shards.sample_members import ImageFormat
from jax_bridge.shards.writer import EpisodeWriter, ShardLimits


def open_writer(
    path: str | os.PathLike[str],
    info: DatasetInfo,
    limits: ShardLimits | None = None,
    images: ImageFormat | None = None,
    *,
    staging: str | os.PathLike[str] | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> EpisodeWriter:
    """Writes a data set, or goes on writing one.

    Args:
        path: a folder, or an address such as `s3://bucket/data`.
        info: how every sample is made; must be that of the data set, if there is one.
        limits: when to start a new shard.
        images: how camera images are stored.
        staging: where shards wait until they are uploaded; of an address only.
        on_wait: told how many shards wait to be uploaded while nothing else happens.

    Raises:
        FingerprintError: if another data set is there.
        ValueError: if `staging` is given for a folder.
        OSError: if it cannot be written.
    """
    if is_address(path):
        return RemoteEpisodeWriter(
            os.fspath(path), info, limits, images, staging=staging, on_wait=on_wait
        )
    if staging is not None:
        raise ValueError(
            f"`staging` must be left out where the data set is a folder, but got {staging}."
        )
    return EpisodeWriter(path, info, limits, images)
