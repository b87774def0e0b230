"""How far apart two experts are at a layer: CKA, principal angles, and probes that disagree.

Letters: e episodes, s steps, c cells, d width, n samples, p directions.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lightning_modules.language.hsic import cka
from lightning_modules.language.jackknife import JackknifeSums, jackknife_interval
from lightning_modules.language.layer_measures import step_hsic
from lightning_modules.language.sample_directions import (
    SampleDirections,
    left_out_in_turn,
    mean_angle,
)
from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.unit_groups import draw_weights

MOST_SAMPLES = 1024
"""Samples that the angles rest on, at most."""
PAIRINGS = 50
"""Random pairings of episodes that show which angles chance alone gives."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Angles:
    """Mean principal angle in degrees, and what random pairings of episodes give."""

    mean: float
    low: float
    """Lower end of the 95 % interval, by leaving hands of episodes out; NaN of fewer than six."""
    high: float
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


def angles_between(
    one: Sequence[Float64[np.ndarray, "_n _p"]],
    two: Sequence[Float64[np.ndarray, "_n _q"]],
    orders: Sequence[Int64[np.ndarray, " n"]],
) -> Angles:
    """The mean angle between both sets of directions, its interval, and chance.

    Args:
        one: the directions among all samples, then those without each hand of episodes.
        two: of the other expert.
        orders: the samples, with episodes exchanged.
    """
    found = np.array([mean_angle(a.T @ b) for a, b in zip(one, two, strict=True)])
    low, high = jackknife_interval(found[:1], found[1:, None])
    chance = mean_angle(np.stack([one[0][order].T @ two[0] for order in orders]))
    chance_low, chance_high = np.percentile(chance, [2.5, 97.5])
    return Angles(
        mean=float(found[0]), low=float(low[0]), high=float(high[0]),
        chance_low=float(chance_low), chance_high=float(chance_high), samples=len(one[0]),
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
        seed: of the random pairings, and of who is left out together.
    """
    row, step = flat_samples(there)
    samples = [slice(None), *left_out_in_turn(row, seed=seed)]
    random = np.random.default_rng(seed)
    orders = [exchanged_order(row, step, random) for _ in range(PAIRINGS)]

    def found(values: Float[np.ndarray, "n d"]) -> list[np.ndarray]:
        every = SampleDirections(values, step)
        return [every.directions(kept) for kept in samples]

    cells = [found(latents[row, step, c]) for c in range(latents.shape[2])]
    return [
        [angles_between(one, two, orders) for two in cells]
        for one in (found(values[row, step, 0]) for values in others)
    ]


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
