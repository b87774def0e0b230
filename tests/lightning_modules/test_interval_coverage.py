"""Intervals cover the truth as often as they say, because whole units are drawn."""

import numpy as np
import pytest
from scipy.stats import binom, norm, t

from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.small_samples import tail_share

SIMULATED = 200


def simulate(kind: str, units: int, seed: int):
    """Scores of frames whose episode decides most; episodes of other lengths. Returns the truth."""
    random = np.random.default_rng((units, seed))
    length = random.integers(3, 13, size=units)
    if kind == "accuracy":
        shares = random.beta(2, 1, size=units)
        return 2 / 3, [random.binomial(1, p, size=n) for n, p in zip(length, shares, strict=True)]
    middle = random.normal(size=units)
    return 0.0, [m + 0.5 * random.normal(size=n) for n, m in zip(length, middle, strict=True)]


def covered(kind: str, units: int, *, frames: bool = False) -> int:
    """In how many of 200 simulated sets the 95 % interval holds the truth."""
    found = 0
    for seed in range(SIMULATED):
        truth, scores = simulate(kind, units, seed)
        if frames:
            scores = np.concatenate(scores)[:, None]
        total = np.array([float(episode.sum()) for episode in scores])
        count = np.array([len(episode) for episode in scores])
        low, high = cluster_bootstrap(total[None], count, resamples=500, seed=seed)[0]
        found += low <= truth <= high
    return found


def acceptable(rate: float) -> tuple[int, int]:
    """What 200 sets of an interval with this rate give, but for 1 case in 1,000."""
    return binom.ppf(5e-4, SIMULATED, rate), binom.ppf(1 - 5e-4, SIMULATED, rate)


@pytest.mark.parametrize("kind", ["accuracy", "cosine"])
@pytest.mark.parametrize("units", [6, 12, 40])
def test_intervals_cover_the_truth_at_the_nominal_rate(kind, units):
    low, high = acceptable(0.95)
    assert low <= covered(kind, units) <= high


@pytest.mark.parametrize("kind", ["accuracy", "cosine"])
def test_intervals_from_frames_would_be_far_too_narrow(kind):
    assert covered(kind, 12, frames=True) < 0.8 * SIMULATED


def test_percentiles_are_taken_further_out_where_units_are_few():
    assert tail_share(0.95, 10_000) == pytest.approx(0.025, rel=1e-3)
    # of a normal mean the interval is then that of Student, whatever the number of units
    n = 8
    reach = -norm.ppf(tail_share(0.95, n)) * ((n - 1) / n) ** 0.5
    assert reach == pytest.approx(t.ppf(0.975, n - 1))


def test_intervals_of_any_metric_widen_alike():
    draws = np.random.default_rng(0).normal(size=(1, 4000))
    plain, few, many = (percentiles(draws, units=units)[0] for units in (None, 6, 100_000))
    assert few[0] < plain[0] < plain[1] < few[1]
    np.testing.assert_allclose(many, plain, rtol=0.01)
