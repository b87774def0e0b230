"""A digest of what the samples of a data set hold."""

from jax_bridge.shards import ShardDataset


def content_digest(dataset: ShardDataset) -> str:
    """A digest of the shards' manifests, which hold the digest of every member."""
    return dataset.content_digest
