"""A policy over recorded frames: its latents become shards, or sums by task or episode."""

from jax_bridge.encoding.encoder import Encoder
from jax_bridge.encoding.frame_calls import EncodedFrame
from jax_bridge.encoding.moments import load_moments
from jax_bridge.encoding.plan import EncodePlan, EncodeReport
from jax_bridge.encoding.reducer import Reducer

__all__ = ["EncodePlan", "EncodeReport", "EncodedFrame", "Encoder", "Reducer", "load_moments"]
