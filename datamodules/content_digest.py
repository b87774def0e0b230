"""A digest of what the samples of a data set hold."""

import hashlib
from pathlib import Path

from jax_bridge.shards import ShardDataset


def content_digest(dataset: ShardDataset) -> str:
    """A digest of the shards' manifests, which hold the digest of every member."""
    digest = hashlib.sha256()
    for manifest in sorted(Path(dataset.path).glob("shards/*.json")):
        digest.update(hashlib.sha256(manifest.read_bytes()).digest())
    return digest.hexdigest()
