"""How far apart two experts are at a layer: CKA, principal angles, and probes that disagree.

Letters: e episodes, s steps, c cells, d width, n samples, p directions.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.linalg import eigh, subspace_angles

from lightning_modules.language.hsic import cka
from lightning_modules.language.jackknife import JackknifeSums
from lightning_modules.language.layer_measures import step_hsic
from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.unit_groups import draw_weights

DIRECTIONS = 5
"""The principal directions whose angles are compared."""
MOST_SAMPLES = 1024
"""Samples that the angles rest on, at most."""
PAIRINGS = 50
"""Random pairings of episodes that show which angles chance alone gives."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Angles:
    """Mean principal angle in degrees, and what random pairings of episodes give."""

    mean: float
    chance_low: float
    chance_high: float
    samples: int


def flat_samples(
    there: Bool[np.ndarray, "e s"], most: int = MOST_SAMPLES
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Episode and step of the samples of as many whole episodes as fit."""
    episodes = int(np.searchsorted(there.sum(1).cumsum(), most, side="right"))
    row, step = np.nonzero(there[: max(episodes, 1)])
    return row.astype(np.int64), step.astype(np.int64)


def main_directions(
    features: Float[np.ndarray, "n d"], step: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n p"]:
    """Orthonormal directions among samples in which features vary most, apart from the step.

    The mean of each step is taken away: that both experts follow the clock is no agreement.
    """
    moved = features.astype(np.float64)
    for number in np.unique(step):
        here = step == number
        moved[here] -= moved[here].mean(0)
    wide = moved.shape[1] >= len(moved)
    inner = moved @ moved.T if wide else moved.T @ moved
    n = len(inner)
    sizes, vectors = eigh(inner, subset_by_index=(max(0, n - DIRECTIONS), n - 1))
    kept = sizes > 1e-10 * max(float(sizes[-1]), 1e-300)
    found = vectors[:, kept]
    return found if wide else moved @ found / np.sqrt(sizes[kept])


def exchanged_order(
    row: Int64[np.ndarray, " n"], step: Int64[np.ndarray, " n"], random: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Samples exchanged between episodes at the same step, the same way at every step."""
    rank = random.permutation(int(row.max()) + 1)
    order = np.arange(len(row))
    for number in np.unique(step):
        here = np.flatnonzero(step == number)
        ring = here[np.argsort(rank[row[here]])]
        order[ring] = np.roll(ring, 1)
    return order


def principal_angles(
    one: Float64[np.ndarray, "n _p"],
    two: Float64[np.ndarray, "n _q"],
    row: Int64[np.ndarray, " n"],
    step: Int64[np.ndarray, " n"],
    *,
    seed: int,
) -> Angles:
    """The mean angle between both sets of directions, beside chance.

    Source: Björck & Golub (1973), by scipy; on samples, as in SVCCA (Raghu et al., 2017), since
    experts differ in width.
    """
    random = np.random.default_rng(seed)
    if not one.shape[1] or not two.shape[1]:
        nothing = float("nan")
        return Angles(mean=nothing, chance_low=nothing, chance_high=nothing, samples=len(row))
    orders = [exchanged_order(row, step, random) for _ in range(PAIRINGS)]
    cosines = np.linalg.svd(np.stack([one[order].T @ two for order in orders]), compute_uv=False)
    chance = np.degrees(np.arccos(np.clip(cosines, 0, 1))).mean(-1)
    low, high = np.percentile(chance, [2.5, 97.5])
    mean = float(np.degrees(subspace_angles(one, two)).mean())
    return Angles(
        mean=mean, chance_low=float(low), chance_high=float(high),
        samples=len(row),
    )  # fmt: skip


def cell_angles(
    others: list[np.ndarray],
    latents: Float[np.ndarray, "e s c d"],
    there: Bool[np.ndarray, "e s"],
    *,
    seed: int,
) -> list[list[Angles]]:
    """The angles of each of the others with every cell, on as many episodes as are allowed.

    Args:
        others: latents of a single cell each, [e, s, 1, their width].
        latents: of the cells that each is compared with.
        there: where there is a sample.
        seed: of the random pairings.
    """
    row, step = flat_samples(there)
    directions = [main_directions(latents[row, step, c], step) for c in range(latents.shape[2])]
    found = []
    for values in others:
        one = main_directions(values[row, step, 0], step)
        found.append([principal_angles(one, two, row, step, seed=seed) for two in directions])
    return found


def add_separation(
    sums: JackknifeSums,
    one: Float[np.ndarray, "e s 1 _d"],
    two: Float[np.ndarray, "e s c d"],
    there: Bool[np.ndarray, "e s"],
) -> None:
    """Adds a block's HSIC, summed over the steps: samples are compared at the same step only."""
    total, without = step_hsic(one, two, there)
    whole = np.where(np.isfinite(total), total, 0)
    changes = np.where(np.isfinite(without), without, whole)
    sums.add(whole.sum(1), changes.sum(2))


def separation_cka(sums: JackknifeSums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unbiased CKA of each cell with its interval."""
    return sums.statistic(lambda q: cka(q[0], q[1], q[2]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How often two probes name different instructions on the same samples."""

    share: Float64[np.ndarray, " c"]
    low: Float64[np.ndarray, " c"]
    high: Float64[np.ndarray, " c"]
    independent: Float64[np.ndarray, " c"]
    """How often they would, if each erred on its own in samples of the same instruction."""


def probe_disagreement(
    one: Int64[np.ndarray, "e s"],
    two: Int64[np.ndarray, "e s c"],
    text: Int64[np.ndarray, " e"],
    *,
    draws: int,
    seed: int,
) -> Disagreement:
    """Compares the instructions that two probes named; -1 where there is no sample."""
    there = one >= 0
    count = there.sum(1)
    differ = ((one[..., None] != two) & there[..., None]).sum(1).astype(np.float64)
    weights = draw_weights(count.astype(np.int64), draws=draws, seed=seed)
    drawn = (weights @ differ / np.maximum(weights @ count, 1)[:, None]).T
    low, high = percentiles(drawn).T if len(weights) else np.full((2, two.shape[2]), np.nan)
    return Disagreement(
        share=differ.sum(0) / count.sum(), low=low, high=high,
        independent=_independent(one, two, text, there),
    )  # fmt: skip


def _independent(
    one: Int64[np.ndarray, "e s"],
    two: Int64[np.ndarray, "e s c"],
    text: Int64[np.ndarray, " e"],
    there: Bool[np.ndarray, "e s"],
) -> Float64[np.ndarray, " c"]:
    size = int(max(one.max(), two.max())) + 1
    found = np.zeros(two.shape[2])
    for label in np.unique(text):
        here = text == label
        mine = np.bincount(one[here][there[here]], minlength=size)
        for cell in range(two.shape[2]):
            other = np.bincount(two[here][there[here]][:, cell], minlength=size)
            both = float(mine @ other) / max(1, mine.sum()) / max(1, other.sum())
            found[cell] += (1 - both) * mine.sum()
    return found / max(1, there.sum())
