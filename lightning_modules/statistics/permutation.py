"""Permutation tests over a grid of cells, corrected by the largest statistic.

What is permuted are the labels of whole units (episodes, or tasks), never of frames. The same
permutations serve every cell, so the largest score over the cells of each permutation is a draw
from the distribution of the best of all cells where no cell knows anything.

Letters: c cells, r permutations, n units.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64

ROUNDING = 1e-9
"""Scores closer than this are equal: sums in another order must not break a tie."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """One-sided p-values of every cell: how often chance scores as high as was observed."""

    observed: Float64[np.ndarray, " c"]
    raw: Float64[np.ndarray, " c"]
    """Of each cell by itself."""
    corrected: Float64[np.ndarray, " c"]
    """Of the best of all cells by chance: an error in any cell of the grid has this rate."""
    null_mean: Float64[np.ndarray, " c"]
    """Mean score with permuted labels: what this probe reaches knowing nothing."""
    permutations: int
    kind: str
    """`refit`, or `held_out`: what was done with the permuted labels."""


def p_values(
    observed: Float64[np.ndarray, " c"], permuted: Float64[np.ndarray, "r c"], *, kind: str
) -> PermutationTest:
    """Compares scores with those of permuted labels; larger scores are better.

    The observed labels count as one permutation, so no p-value is below 1/(r + 1).

    Args:
        observed: the scores.
        permuted: the same scores with the labels permuted, all cells alike.
        kind: `refit` or `held_out`.

    Source: Westfall & Young, Resampling-Based Multiple Testing (1993), single step; Phipson &
    Smyth (2010) for the count of the observed one.
    """
    draws = len(permuted)
    limit = observed - ROUNDING
    best = np.sort(permuted.max(axis=1))
    reached = draws - np.searchsorted(best, limit, side="left")
    return PermutationTest(
        observed=observed,
        raw=(1 + (permuted >= limit).sum(axis=0)) / (draws + 1),
        corrected=(1 + reached) / (draws + 1),
        null_mean=permuted.mean(axis=0),
        permutations=draws,
        kind=kind,
    )


def draw_permutations(
    blocks: Int64[np.ndarray, " n"], permutations: int, seed: int
) -> Int64[np.ndarray, "r n"]:
    """Random permutations of units that stay inside their blocks.

    Args:
        blocks: the block of each unit; units are exchanged with those of the same block.
        permutations: how many.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(blocks, kind="stable")
    # Sorting by (block, random number) shuffles inside the blocks and keeps them in their order.
    keys = blocks[order] + random.random((permutations, len(blocks)))
    drawn = np.empty((permutations, len(blocks)), np.int64)
    drawn[:, order] = order[np.argsort(keys, axis=1)]
    return drawn
