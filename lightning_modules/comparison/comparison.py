"""The comparison itself: every measure as observed, under exchanges, and without some episodes.

All measures see the same exchanges. So the largest of all measures, each in its own null's standard
deviations, has a null too, and "no difference" is wrong at the chosen rate however many measures
there are.

Letters: n pooled rows, d dimensions, r permutations, m measures, g groups.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy import stats

from lightning_modules.comparison.alike import Alike, how_alike, unit_correlation
from lightning_modules.comparison.exchange import Exchange
from lightning_modules.comparison.measure import Measure
from lightning_modules.comparison.pooled import Pooled
from lightning_modules.comparison.registry import MEASURES
from lightning_modules.language.jackknife import jackknife_interval
from lightning_modules.statistics.permutation import p_values

LEVEL = 0.05
POWER = 0.8
Show = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureResult:
    """One number, and what it would be where there is no difference."""

    name: str
    title: str
    value: float
    low: float
    """95 % interval of the value, leaving groups of episodes out. It does not take the bias away
    that the value has without any difference: the null shows that."""
    high: float
    null_mean: float
    null_low: float
    """2.5 and 97.5 % of the null."""
    null_high: float
    p: float
    p_corrected: float
    """For all measures together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detectable:
    """What a comparison of this size would see."""

    shift: float
    """Of a single dimension, in std, that is found with a chance of 80 %."""
    units_a: int
    units_b: int
    rows_a: int
    rows_b: int
    design_effect: float
    """How much larger the variance of a mean is than of as many independent vectors; median."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonResults:
    """Everything that was found."""

    measures: list[MeasureResult]
    refused: dict[str, str]
    """Measures that these vectors do not allow, and why."""
    dimensions: dict[str, Float64[np.ndarray, " d"]]
    """Columns of the table of dimensions."""
    alike: list[Alike]
    """Of pairs."""
    detectable: Detectable
    permutations: int

    @property
    def p(self) -> float:
        """Of any difference at all."""
        return min((m.p_corrected for m in self.measures), default=1.0)

    @property
    def differs(self) -> bool:
        """Whether that is below the level."""
        return self.p <= LEVEL

    def moved(self, word: str = "p_shift") -> list[int]:
        """Dimensions whose corrected p is below the level, the clearest first."""
        p, t = self.dimensions[word], np.abs(self.dimensions["t"])
        order = np.lexsort([-t, p])
        return [int(place) for place in order if p[place] <= LEVEL]

    def to_json(self) -> dict[str, Any]:
        """Plain types; the dimensions go to a file of their own."""
        return {
            "differs": self.differs, "p": self.p, "permutations": self.permutations,
            "measures": [dataclasses.asdict(m) for m in self.measures],
            "refused": self.refused, "alike": [dataclasses.asdict(a) for a in self.alike],
            "detectable": dataclasses.asdict(self.detectable),
            "dimensions_moved": self.moved(), "dimensions_spread": self.moved("p_std"),
        }  # fmt: skip


def compare(
    vectors: Float32[np.ndarray, "n d"],
    exchange: Exchange,
    *,
    measures: Sequence[type[Measure]] = MEASURES,
    seed: int = 0,
    show: Show = lambda done, total, what: None,
) -> ComparisonResults:
    """Compares the vectors of A with those of B.

    Args:
        vectors: those of A, then those of B.
        exchange: which belong together, and how they are exchanged.
        measures: what is taken; `Moments` must be among them.
        seed: of projections and folds.
        show: is told how far it is.
    """
    pooled = Pooled(vectors, exchange, seed)
    refused, kept = {}, []
    for measure in measures:
        why = measure.refusal(pooled)
        refused |= dict.fromkeys(measure.titles.values(), why) if why else {}
        kept += [] if why else [measure]
    total = len(kept) * (1 + len(exchange.permuted) + len(exchange.without))
    found: list[MeasureResult] = []
    observed: dict[str, float] = {}
    null: dict[str, list[float]] = {}
    without: dict[str, list[float]] = {}
    titles: dict[str, str] = {}
    columns: dict[str, np.ndarray] = {}
    done = 0
    for kind in kept:
        measure, what = kind(pooled), next(iter(kind.titles))
        titles |= kind.titles
        observed |= measure.values(exchange.observed)
        columns |= measure.by_dimension(exchange.observed)
        done += 1
        for rows, target in ((exchange.permuted, null), (exchange.without, without)):
            for sides in rows:
                for name, value in measure.values(sides).items():
                    target.setdefault(name, []).append(value)
                done += 1
                show(done, total, what)
    found = results_of(titles, observed, null, without)
    columns = dimension_columns(columns, null, exchange, vectors)
    halves = vectors[exchange.observed > 0], vectors[exchange.observed < 0]
    alike = (
        how_alike(*halves, exchange.unit[: len(halves[0])], seed=seed) if exchange.paired else []
    )
    return ComparisonResults(
        measures=found, refused=refused, dimensions=columns, alike=alike,
        detectable=detectable_of(columns, null["largest_shift"], exchange),
        permutations=len(exchange.permuted),
    )  # fmt: skip


def results_of(
    titles: dict[str, str],
    observed: dict[str, float],
    null: dict[str, list[float]],
    without: dict[str, list[float]],
) -> list[MeasureResult]:
    """The numbers with p-values, intervals and nulls."""
    names = list(titles)
    values = np.array([observed[name] for name in names])
    draws = np.array([null[name] for name in names]).T
    every = np.vstack([draws, values])  # the observed one is as good a draw as any
    spread = every.std(axis=0)
    scale = np.where(spread > 0, spread, 1)
    middle = every.mean(axis=0)
    test = p_values((values - middle) / scale, (draws - middle) / scale, kind="exchange")
    left = np.array([without[name] for name in names]).T
    low, high = jackknife_interval(values, left)
    ends = np.percentile(draws, [2.5, 97.5], axis=0)
    return [
        MeasureResult(
            name=name, title=titles[name], value=float(values[i]), low=float(low[i]),
            high=float(high[i]), null_mean=float(draws[:, i].mean()), null_low=float(ends[0, i]),
            null_high=float(ends[1, i]), p=float(test.raw[i]), p_corrected=float(test.corrected[i]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip


def dimension_columns(
    columns: dict[str, np.ndarray],
    null: dict[str, list[float]],
    exchange: Exchange,
    vectors: Float32[np.ndarray, "n d"],
) -> dict[str, np.ndarray]:
    """The table of dimensions, with p-values that are corrected for all of them."""
    found = dict(columns)
    pairs = (("p_shift", "t", "largest_shift"), ("p_std", "log_std_ratio", "largest_std_ratio"),
             ("p_ks", "ks", "largest_ks"))  # fmt: skip
    for word, column, largest in pairs:
        if column in columns and largest in null:
            best = np.sort(null[largest])
            reached = len(best) - np.searchsorted(best, np.abs(columns[column]) - 1e-9)
            found[word] = (1 + reached) / (1 + len(best))
    if exchange.paired:
        a, b = vectors[exchange.observed > 0], vectors[exchange.observed < 0]
        found["correlation"] = unit_correlation(a, b)
    return found


def detectable_of(
    columns: dict[str, np.ndarray], largest: list[float], exchange: Exchange
) -> Detectable:
    """The shift of a dimension that would be found, by the errors and the null that were met."""
    a, b = exchange.observed > 0, exchange.observed < 0
    error = columns["error"]
    known = error[error > 0]
    median = float(np.median(known)) if len(known) else float("nan")
    independent = 1 / a.sum() + 1 / b.sum()
    return Detectable(
        shift=(float(np.percentile(largest, 95)) + float(stats.norm.ppf(POWER))) * median,
        units_a=len(np.unique(exchange.unit[a])),
        units_b=len(np.unique(exchange.unit[b])),
        rows_a=int(a.sum()),
        rows_b=int(b.sum()),
        design_effect=median**2 / float(independent),
    )
