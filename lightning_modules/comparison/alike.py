"""How alike the two sides of pairs are: 1 if the same, with what unrelated frames would give.

The null pairs each episode of A with another episode of B, at the same share of the way.

Letters: n pairs, d dimensions, u episodes, r draws.
"""

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lightning_modules.comparison.exchange import GROUPS
from lightning_modules.language.hsic import FEWEST, cka, hsic, kernel
from lightning_modules.language.jackknife import jackknife_interval

DRAWS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alike:
    """One number of the pairs."""

    name: str
    title: str
    value: float
    low: float
    """95 % interval, leaving groups of episodes out."""
    high: float
    null_mean: float
    """Of frames that do not belong together."""
    null_high: float
    """Their 95 % quantile."""
    p: float


TITLES: dict[str, str] = {
    "cka": "linear CKA, unbiased",
    "correlation": "correlation of a dimension over the pairs, mean",
    "cosine": "cosine between the two vectors of a pair, centred, mean",
}


def unit_correlation(
    a: Float32[np.ndarray, "n d"], b: Float32[np.ndarray, "n d"]
) -> Float64[np.ndarray, " d"]:
    """Pearson's r of each dimension; 0 where one does not vary."""
    first, second = (x - x.mean(0, dtype=np.float64) for x in (a, b))
    size = np.sqrt(np.square(first).sum(0) * np.square(second).sum(0))
    products = (first * second).sum(0)
    return np.where(size > 0, products / np.where(size > 0, size, 1), 0.0)


def _numbers(a: Float32[np.ndarray, "n d"], b: Float32[np.ndarray, "n d"]) -> dict[str, float]:
    first, second = (x - x.mean(0, dtype=np.float64) for x in (a, b))
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(1) / np.where(sizes > 0, sizes, 1)
    return {
        "correlation": float(unit_correlation(a, b).mean()),
        "cosine": float(cosines.mean()),
    }


class Kernels:
    """Unbiased CKA of some pairs of rows, from kernels that are made once."""

    def __init__(self, a: Float32[np.ndarray, "n d"], b: Float32[np.ndarray, "n d"]) -> None:
        self._a, self._b = (kernel(x[:, None].astype(np.float64)) for x in (a, b))

    def cka(self, rows: Int64[np.ndarray, " m"], partners: Int64[np.ndarray, " m"]) -> float:
        """Of rows of A with rows of B."""
        one = self._a[:, rows[:, None], rows]
        two = self._b[:, partners[:, None], partners]
        # Two partners may be one row, where a short episode is stretched over a long one.
        np.fill_diagonal(two[0], 0)
        return float(cka(hsic(one, two), hsic(one, one), hsic(two, two))[0])


def partner_rows(
    unit: Int64[np.ndarray, " n"], random: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """For each row, one of another episode at the same share of the way."""
    members = [np.flatnonzero(unit == number) for number in range(int(unit.max()) + 1)]
    order = random.permutation(len(members))
    found = np.empty(len(unit), np.int64)
    for place, number in enumerate(order):  # a ring: nobody keeps his own
        own, there = members[number], members[order[(place + 1) % len(order)]]
        found[own] = there[np.arange(len(own)) * len(there) // len(own)]
    return found


def how_alike(
    a: Float32[np.ndarray, "n d"],
    b: Float32[np.ndarray, "n d"],
    unit: Int64[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> list[Alike]:
    """The numbers with intervals and nulls; none with too few pairs."""
    if len(a) < FEWEST:
        return []
    kernels, every = Kernels(a, b), np.arange(len(a))

    def numbers(
        rows: Int64[np.ndarray, " m"], partners: Int64[np.ndarray, " m"]
    ) -> dict[str, float]:
        return {"cka": kernels.cka(rows, partners), **_numbers(a[rows], b[partners])}

    random, units = np.random.default_rng(seed), int(unit.max()) + 1
    values = numbers(every, every)
    null = [numbers(every, partner_rows(unit, random)) for _ in range(DRAWS)]
    group = random.permutation(units) % min(GROUPS, units)
    parts = [np.flatnonzero(group[unit] != number) for number in range(min(GROUPS, units))]
    without = [numbers(rows, rows) for rows in parts if len(rows) >= FEWEST]
    found = []
    for name, value in values.items():
        drawn = np.array([draw[name] for draw in null])
        left = np.array([[part[name]] for part in without])
        low, high = jackknife_interval(np.array([value]), left)
        found.append(
            Alike(
                name=name, title=TITLES[name], value=value, low=float(low[0]), high=float(high[0]),
                null_mean=float(drawn.mean()), null_high=float(np.percentile(drawn, 95)),
                p=float((1 + (drawn >= value - 1e-12).sum()) / (1 + len(drawn))),
            )
        )  # fmt: skip
    return found
