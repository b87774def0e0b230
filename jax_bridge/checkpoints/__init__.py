"""Checkpoints as files: what they hold, how two differ, and how they come here.

Free of jax and torch, so that a look at seven gigabytes costs less than importing either.
"""

from jax_bridge.checkpoints.formats import open_checkpoint
from jax_bridge.checkpoints.stored_checkpoint import StoredCheckpoint, StoredTensor

__all__ = ["StoredCheckpoint", "StoredTensor", "open_checkpoint"]
