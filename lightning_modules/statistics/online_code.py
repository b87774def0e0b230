"""How many bits a probe needs to tell the labels to someone who has the latents.

The online (prequential) code sends the labels block by block. The first block is sent with the
uniform code; each later one with the probabilities of a probe that was trained on all blocks before
it, which both sides can train. A short code means that the labels can be read easily, from few
examples; accuracy alone does not show that. Blocks are whole units, since frames of one episode
would give each other away.

Letters: c cells, s blocks after the first.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

SHARES: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
"""Up to which share of the units each block reaches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineCode:
    """The code length of every cell."""

    bits: Float64[np.ndarray, " c"]
    """For all labels together."""
    uniform: float
    """Bits of the uniform code: what it takes without the latents and without counting."""
    samples: int

    @property
    def compression(self) -> Float64[np.ndarray, " c"]:
        """How many times shorter than the uniform code; 1 or less means that nothing was read."""
        return self.uniform / self.bits

    @property
    def bits_a_sample(self) -> Float64[np.ndarray, " c"]:
        """Mean bits a label."""
        return self.bits / self.samples


def online_code(
    losses: Float64[np.ndarray, "c s"], first: int, samples: Int64[np.ndarray, " s"], classes: int
) -> OnlineCode:
    """The code length from the losses of probes trained on growing prefixes.

    Args:
        losses: summed cross-entropy (in nats) of each block after the first, by the probe that was
            trained on all blocks before it.
        first: samples of the first block.
        samples: of the other blocks.
        classes: how many there are.

    Source: Voita & Titov, Information-Theoretic Probing with Minimum Description Length (2020),
    section 3.2.
    """
    total = first + int(samples.sum())
    return OnlineCode(
        bits=first * math.log2(classes) + losses.sum(axis=1) / math.log(2),
        uniform=total * math.log2(classes),
        samples=total,
    )


def block_of_unit(
    units: int, *, seed: int, shares: Sequence[float] = SHARES
) -> Int64[np.ndarray, " units"]:
    """The block of each unit, in a random order that depends on the seed alone.

    Blocks that would be empty, with few units, are left out: the first has one unit at least.

    Args:
        units: how many there are.
        seed: of the order.
        shares: up to which share of the units each block reaches.

    Raises:
        ValueError: if there are fewer than two units.
    """
    if units < 2:
        raise ValueError(
            f"`units` must be at least 2 for an online code, but got {units}. Select more episodes."
        )
    ends = np.unique(np.maximum(np.round(np.array(shares) * units).astype(np.int64), 1))
    blocks = np.empty(units, np.int64)
    blocks[np.random.default_rng(seed).permutation(units)] = np.searchsorted(
        ends, np.arange(units), side="right"
    )
    return blocks
