"""Attention probabilities from region to region, pooled where they are computed.

What is kept of a pair A, B is how much of its attention an average valid token of A spends on the
valid tokens of B: over regions that share no token and hold all visible ones, the numbers of an A
add up to 1. The matrix from every token of A to every token of B leaves a block only if it is asked
for by name, with pool `tokens`.

Letters: b batch; t tokens that look; s tokens that are looked at; n key-value heads; g query heads
a key-value head; a regions that look; c regions that are looked at; h heads; l, k tokens of one
region that looks, and of one that is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from jax_bridge.vocabulary import REGIONS_OF_EXPERT, SPOKEN_REGIONS

if TYPE_CHECKING:
    from jax_bridge.pi0.recording import Region

SITE = "attention"
SEPARATOR = "_to_"
POOLED = "pooled"
"""Key of all pairs that are pooled, beside those of whole matrices."""


def pair_of(region: str) -> tuple[str, str]:
    """`action_to_instruction` as its two regions."""
    looking, _, seen = region.partition(SEPARATOR)
    return looking, seen


def is_spoken(region: str) -> bool:
    """Whether a region, or the looking one of a pair, is of tokens that the backbone says."""
    return pair_of(region)[0] in SPOKEN_REGIONS


def pairs_of(expert: str) -> tuple[tuple[str, str], ...]:
    """All pairs of an expert: its own regions look, at its own and (action) at the prefix's."""
    own = REGIONS_OF_EXPERT[expert]
    seen = own if expert == "vlm" else (*REGIONS_OF_EXPERT["vlm"], *own)
    return tuple((looking, at) for looking in own for at in seen)


def spoken_pairs() -> tuple[tuple[str, str], ...]:
    """Pairs of tokens that the backbone says: they look at the prompt and at each other."""
    seen = (*REGIONS_OF_EXPERT["vlm"], *SPOKEN_REGIONS)
    return tuple((looking, at) for looking in SPOKEN_REGIONS for at in seen)


class AttentionPooling:
    """Pools one expert's probabilities; made before the scan over its blocks.

    Args:
        regions: of the model.
        pairs: what is kept pooled.
        whole: pairs of which the matrix is kept.
        expert: whose tokens look.
        tokens: tokens of that expert.
        prefix: tokens of the prefix, which stand before its own among those looked at; 0 for vlm.
    """

    def __init__(
        self,
        regions: "Mapping[str, Region]",
        pairs: Sequence[tuple[str, str]],
        *,
        whole: Sequence[tuple[str, str]] = (),
        expert: str,
        tokens: int,
        prefix: int,
    ) -> None:
        self._looking = tuple(dict.fromkeys(looking for looking, _ in pairs))
        self._seen = tuple(dict.fromkeys(seen for _, seen in pairs))
        own = REGIONS_OF_EXPERT[expert]
        self._regions, self._whole = regions, tuple(whole)
        self._offsets = {region: prefix if region in own else 0 for region in regions}
        if pairs:
            self._weights = jnp.stack([_mean(regions[r], tokens) for r in self._looking], axis=1)
            masks = [seen_mask(regions[r], prefix + tokens, self._offsets[r]) for r in self._seen]
            self._masks = jnp.stack(masks, axis=1)

    def __call__(self, probabilities: Float32[Array, "b n t g s"]) -> dict[str, Array]:
        """Sums over tokens looked at, means over tokens that look; and whole matrices."""
        kept = {SEPARATOR.join(pair): self._matrix(*pair, probabilities) for pair in self._whole}
        if not self._looking:
            return kept
        spent = jnp.einsum("bntgs,bcs->bntgc", probabilities, self._masks)
        pooled = jnp.einsum("bat,bntgc->bacng", self._weights, spent)
        return {**kept, POOLED: pooled.reshape(*pooled.shape[:3], -1)}

    def _matrix(
        self, looking: str, seen: str, probabilities: Float32[Array, "b n t g s"]
    ) -> Float32[Array, "b h l k"]:
        """From every token of one region to every token of another; zeros if it is not valid."""
        rows, columns = self._regions[looking], self._regions[seen]
        offset = self._offsets[seen]
        first, last = (place + offset for place in columns.span)
        part = probabilities[:, :, slice(*rows.span), :, first:last]
        part = jnp.moveaxis(part, 3, 2).reshape(len(part), -1, *part.shape[2::2])
        valid = rows.mask[:, :, None] & columns.mask[:, None, :]
        return jnp.where(valid[:, None], part, 0)

    def pair(self, region: str, pool: str, kept: Mapping[str, Array]) -> Array:
        """One pair out of what all scans stacked.

        Args:
            region: both of its regions.
            pool: `mean`: [scans ..., b, h]; `tokens`: [scans ..., b, h, l, k].
            kept: what calls gave.
        """
        if pool != "mean":
            return kept[region]
        looking, seen = pair_of(region)
        return kept[POOLED][..., self._looking.index(looking), self._seen.index(seen), :]


def _mean(region: "Region", tokens: int) -> Float[Array, "b t"]:
    """What each token counts for; all zero if none is valid."""
    (start, stop), mask = region.span, region.mask
    weights = mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    return jnp.pad(weights.astype(jnp.float32), ((0, 0), (start, tokens - stop)))


def seen_mask(region: "Region", keys: int, offset: int) -> Float[Array, "b s"]:
    """One where a token of the region is looked at that is valid.

    Args:
        region: that is looked at.
        keys: all tokens that are looked at.
        offset: of the region's expert among them.
    """
    (start, stop), mask = region.span, region.mask
    padding = ((0, 0), (offset + start, keys - offset - stop))
    return jnp.pad(mask.astype(jnp.float32), padding)
