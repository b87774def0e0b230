"""How many samples are enough: two independent samples of n rows, and how far they differ.

Both are drawn from the vectors at hand, without overlap, so n goes to half of them. Where an
episode has several frames, whole episodes are drawn: frames of one episode resemble each other, and
n frames of few episodes say less than n independent ones.

Letters: n rows, d dimensions.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy import linalg

DRAWS = 30
POINTS = 8
MOST_ROWS = 1200
"""Of the vectors at hand; a sample is half of them at most."""
FEWEST = 8
"""Rows of the smallest sample."""

Points = Float64[np.ndarray, "_ d"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StabilityCurve:
    """One statistic by sample size."""

    name: str
    rows: list[float]
    """Mean size of a sample."""
    units: list[int]
    """Episodes of a sample."""
    middle: list[float]
    low: list[float]
    """2.5 and 97.5 % of the draws."""
    high: list[float]


def _difference_of_means(
    one: Float64[np.ndarray, "_n d"],
    two: Float64[np.ndarray, "_m d"],
    std: Float64[np.ndarray, " d"],
) -> float:
    return float(np.sqrt(np.mean(((one.mean(0) - two.mean(0)) / std) ** 2)))


def _ratio_of_stds(
    one: Float64[np.ndarray, "_n d"],
    two: Float64[np.ndarray, "_m d"],
    std: Float64[np.ndarray, " d"],
) -> float:
    floor = 1e-6 * std
    return float(np.median(np.abs(np.log((one.std(0) + floor) / (two.std(0) + floor)))))


def _overlap_of_directions(
    one: Float64[np.ndarray, "_n d"],
    two: Float64[np.ndarray, "_m d"],
    std: Float64[np.ndarray, " d"],
) -> float:
    first = [first_directions(part) for part in (one, two)]
    k = min(map(len, first))
    return float(1 - np.square(first[0][:k] @ first[1][:k].T).sum() / k)


DIRECTIONS = 5
STATISTICS: dict[str, Callable[..., float]] = {
    "means": _difference_of_means,
    "stds": _ratio_of_stds,
    "directions": _overlap_of_directions,
}
"""0 where both samples agree: root mean square difference of the means in std; median |log ratio|
of the stds; 1 - overlap of the first principal directions."""


def first_directions(rows: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "_k d"]:
    """The first principal directions."""
    centred = rows - rows.mean(0)
    if len(rows) < rows.shape[1]:
        n = len(rows)
        top = [max(0, n - DIRECTIONS), n - 1]
        values, vectors = linalg.eigh(centred @ centred.T, subset_by_index=top)
        kept = values > 1e-12 * max(values[-1], 1e-300)
        return (centred.T @ vectors[:, kept] / np.sqrt(values[kept])).T
    return np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :DIRECTIONS].T


def unit_members(units: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " _"]]:
    """The rows of each unit."""
    _, code = np.unique(units, return_inverse=True)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def some_units(
    vectors: Float32[np.ndarray, "n d"],
    units: Int64[np.ndarray, " n"],
    random: np.random.Generator,
) -> tuple[Float32[np.ndarray, "_m d"], Int64[np.ndarray, " _m"]]:
    """Whole units, drawn until there are rows enough."""
    members = unit_members(units)
    taken, rows = [], 0
    for unit in random.permutation(len(members)):
        taken.append(members[unit])
        rows += len(members[unit])
        if rows >= MOST_ROWS:
            break
    chosen = np.sort(np.concatenate(taken))
    return vectors[chosen], units[chosen]


def sample_sizes(units: int, rows: int) -> list[int]:
    """How many units each sample has, growing to half of all."""
    first = max(2, -(-FEWEST * units // rows))
    if first > units // 2:
        return []
    sizes = np.geomspace(first, units // 2, POINTS).round().astype(int)
    return list(dict.fromkeys(sizes.tolist()))


def stability_curves(
    vectors: Float32[np.ndarray, "n d"], units: Int64[np.ndarray, " n"], *, seed: int = 0
) -> list[StabilityCurve]:
    """The curves; none where there are too few units."""
    random = np.random.default_rng(seed)
    vectors, units = some_units(vectors, units, random)
    members = unit_members(units)
    std = vectors.std(axis=0, dtype=np.float64)
    varies = std > 0
    points = vectors[:, varies].astype(np.float64)
    sizes = sample_sizes(len(members), len(points)) if varies.any() else []
    found: dict[str, list[list[float]]] = {name: [] for name in STATISTICS}
    rows = []
    for size in sizes:
        draws: dict[str, list[float]] = {name: [] for name in STATISTICS}
        taken = 0
        for _ in range(DRAWS):
            order = random.permutation(len(members))
            ones, twos = order[:size], order[size : 2 * size]
            one, two = (points[np.concatenate([members[u] for u in part])] for part in (ones, twos))
            taken += len(one) + len(two)
            for name, statistic in STATISTICS.items():
                draws[name].append(statistic(one, two, std[varies]))
        rows.append(taken / (2 * DRAWS))
        for name, values in draws.items():
            found[name].append(np.percentile(values, [50, 2.5, 97.5]).tolist())
    return [
        StabilityCurve(
            name=name, rows=rows, units=sizes, middle=[p[0] for p in points_of],
            low=[p[1] for p in points_of], high=[p[2] for p in points_of],
        )
        for name, points_of in found.items()
        if sizes
    ]  # fmt: skip


def design_effect(vectors: Float32[np.ndarray, "n d"], units: Int64[np.ndarray, " n"]) -> float:
    """By how much frames of one episode repeat each other: n frames are worth n / this many.

    1 where frames are independent, the number of frames an episode where they are all alike; NaN
    with fewer than two units.

    Source: Kish, Survey Sampling (1965): variance of the mean, of clusters over of single rows.
    """
    members = unit_members(units)
    if len(members) < 2:
        return float("nan")
    points = vectors.astype(np.float64)
    centred = points - points.mean(0)
    sums = np.stack([centred[rows].sum(0) for rows in members])
    clustered = np.square(sums).sum(0) * len(members) / (len(members) - 1)
    single = np.square(centred).sum(0) * len(points) / max(len(points) - 1, 1)
    kept = single > 0
    return float(np.median(clustered[kept] / single[kept])) if kept.any() else float("nan")
