"""Attention probabilities from region to region, pooled where they are computed.

The full matrix never leaves a block. What is kept of a pair A, B is how much of its attention an
average valid token of A spends on the valid tokens of B: over regions that share no token and hold
all visible ones, the numbers of an A add up to 1.

Letters: b batch; t tokens that look; s tokens that are looked at; n key-value heads; g query heads
a key-value head; a regions that look; c regions that are looked at; h heads.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from jax_bridge.vocabulary import REGIONS_OF_EXPERT

if TYPE_CHECKING:
    from jax_bridge.pi0.recording import Region

SITE = "attention"
SEPARATOR = "_to_"


def pair_of(region: str) -> tuple[str, str]:
    """`action_to_instruction` as its two regions."""
    looking, _, seen = region.partition(SEPARATOR)
    return looking, seen


def pairs_of(expert: str) -> tuple[tuple[str, str], ...]:
    """All pairs of an expert: its own regions look, at its own and (action) at the prefix's."""
    own = REGIONS_OF_EXPERT[expert]
    seen = own if expert == "vlm" else (*REGIONS_OF_EXPERT["vlm"], *own)
    return tuple((looking, at) for looking in own for at in seen)


class AttentionPooling:
    """Pools one expert's probabilities; made before the scan over its blocks.

    Args:
        regions: of the model.
        pairs: what is kept.
        expert: whose tokens look.
        tokens: tokens of that expert.
        prefix: tokens of the prefix, which stand before its own among those looked at; 0 for vlm.
    """

    def __init__(
        self,
        regions: "Mapping[str, Region]",
        pairs: Sequence[tuple[str, str]],
        *,
        expert: str,
        tokens: int,
        prefix: int,
    ) -> None:
        self._looking = tuple(dict.fromkeys(looking for looking, _ in pairs))
        self._seen = tuple(dict.fromkeys(seen for _, seen in pairs))
        self._weights = jnp.stack([_mean(regions[r], tokens) for r in self._looking], axis=1)
        own = REGIONS_OF_EXPERT[expert]
        masks = [
            _inside(regions[r], prefix + tokens, prefix if r in own else 0) for r in self._seen
        ]
        self._masks = jnp.stack(masks, axis=1)

    def __call__(self, probabilities: Float32[Array, "b n t g s"]) -> Float32[Array, "b a c h"]:
        """Sums over tokens looked at, means over tokens that look."""
        spent = jnp.einsum("bntgs,bcs->bntgc", probabilities, self._masks)
        pooled = jnp.einsum("bat,bntgc->bacng", self._weights, spent)
        return pooled.reshape(*pooled.shape[:3], -1)

    def pair(self, region: str, pooled: Array) -> Array:
        """One pair out of what all scans stacked: [scans ..., b, a, c, h] to [scans ..., b, h]."""
        looking, seen = pair_of(region)
        return pooled[..., self._looking.index(looking), self._seen.index(seen), :]


def _mean(region: "Region", tokens: int) -> Float[Array, "b t"]:
    """What each token counts for; all zero if none is valid."""
    (start, stop), mask = region.span, region.mask
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return jnp.pad(weights.astype(jnp.float32), ((0, 0), (start, tokens - stop)))


def _inside(region: "Region", keys: int, offset: int) -> Float[Array, "b s"]:
    (start, stop), mask = region.span, region.mask
    padding = ((0, 0), (offset + start, keys - offset - stop))
    return jnp.pad(mask.astype(jnp.float32), padding)
