"""Every measure against a reference."""

import numpy as np
import ot
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from lightning_modules.comparison.alike import how_alike, partner_rows
from lightning_modules.comparison.distributions import BINS, Divergences, StepFunctions
from lightning_modules.comparison.joint import (
    PROJECTIONS,
    Frechet,
    Mmd,
    PrincipalAngles,
    SlicedWasserstein,
)
from lightning_modules.comparison.moments import Moments
from lightning_modules.comparison.which_model import FOLDS, WhichModel
from tests.context_data import correlated, independent

WIDTH = 12


@pytest.fixture
def pooled(pool):
    """Sides of different sizes; some numbers are equal."""
    a, b = independent(45, WIDTH, seed=0), independent(30, WIDTH, seed=1, shift=0.7, moved=4)
    return pool([np.round(x, 1) for x in a], [np.round(x, 1) for x in b])


@pytest.fixture
def halves(pooled):
    observed = pooled.exchange.observed
    return pooled.vectors[observed > 0], pooled.vectors[observed < 0]


def test_distances_of_a_dimension_are_those_of_scipy(pooled, halves):
    found = StepFunctions(pooled).by_dimension(pooled.exchange.observed)
    columns = list(zip(halves[0].T, halves[1].T, strict=True))
    wasserstein = [stats.wasserstein_distance(x, y) for x, y in columns]
    np.testing.assert_allclose(found["wasserstein"], wasserstein, rtol=1e-4)
    ks = [stats.ks_2samp(x, y).statistic for x, y in columns]
    np.testing.assert_allclose(found["ks"], ks, atol=1e-6)


def test_distances_leave_out_what_is_left_out(pooled):
    sides = pooled.exchange.without[0]
    found = StepFunctions(pooled).by_dimension(sides)
    x, y = (pooled.vectors[sides == sign, 3] for sign in (1, -1))
    assert len(x) + len(y) < len(sides)
    assert found["wasserstein"][3] == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-4)
    assert found["ks"][3] == pytest.approx(stats.ks_2samp(x, y).statistic)


def test_divergences_are_those_of_smoothed_histograms(pooled, halves):
    found = Divergences(pooled).by_dimension(pooled.exchange.observed)
    low, high = np.percentile(pooled.vectors[:, 2], [0.5, 99.5])
    edges = np.linspace(low, high, BINS + 1)
    shares = []
    for part in halves:
        counts = np.histogram(np.clip(part[:, 2], low, high - 1e-9), edges)[0] + 0.5
        shares.append(counts / counts.sum())
    middle = sum(shares) / 2
    # Numbers on an edge may fall to either side of it.
    assert found["kl"][2] == pytest.approx(stats.entropy(*shares), rel=0.1)
    js = sum(stats.entropy(share, middle) for share in shares) / 2
    assert found["js"][2] == pytest.approx(js, rel=0.1)


def test_the_sliced_distance_is_pots(pooled, halves):
    a, b = (part.astype(np.float64) for part in halves)
    there = ot.sliced_wasserstein_distance(a, b, n_projections=PROJECTIONS, seed=pooled.seed)
    found = SlicedWasserstein(pooled).values(pooled.exchange.observed)
    assert found["sliced"] == pytest.approx(float(there))


def test_mmd_is_the_mean_over_all_pairs(pooled, halves):
    a, b = (part.astype(np.float64) for part in halves)
    both = np.concatenate([a, b])
    apart = np.square(both[:, None] - both).sum(-1)
    scale = np.median(apart[np.triu_indices(len(both), 1)])
    kernel = np.exp(-apart / scale)
    within = [
        np.mean([kernel[i, j] for i in part for j in part if i != j])
        for part in (range(45), range(45, 75))
    ]
    expected = sum(within) - 2 * kernel[:45, 45:].mean()
    found = Mmd(pooled).values(pooled.exchange.observed)
    assert found["mmd"] == pytest.approx(expected, abs=1e-6)


def test_the_frechet_distance_of_shifted_copies_is_the_shift(pool):
    a = independent(200, 6, seed=0)
    b = [x + np.float32(1.5) for x in a]
    pooled = pool(a, b)
    found = Frechet(pooled).values(pooled.exchange.observed)
    assert found["frechet"] == pytest.approx(1.5 * np.sqrt(6), rel=1e-3)


def test_principal_angles_see_other_directions(pool):
    random = np.random.default_rng(0)
    wide, narrow = random.normal(size=(60, 8)) * 5, random.normal(size=(60, 12)) * 0.1
    same = np.concatenate([wide, narrow], axis=1)
    other = np.concatenate([narrow, wide[::-1]], axis=1)

    def angle(a, b):
        pooled = pool(list(a[:, None]), list(b[:, None]))
        return PrincipalAngles(pooled).values(pooled.exchange.observed)["angles"]

    assert angle(same, same[::-1] * 1.01) < 0.01
    assert angle(same, other) > 0.99


def test_the_probe_is_a_ridge_regression_on_unseen_episodes(pool):
    pooled = pool(correlated(14, 3, 9, seed=0), correlated(12, 3, 9, seed=1, shift=1, moved=2))
    probe, sides = WhichModel(pooled), pooled.exchange.observed
    said = probe.outputs(sides)
    fold = (np.random.default_rng(pooled.seed).permutation(26) % FOLDS)[pooled.unit]
    points = np.concatenate([pooled.vectors.astype(np.float64), np.ones((len(sides), 1))], axis=1)
    labels = np.where(sides > 0, 1 / (sides > 0).sum(), -1 / (sides < 0).sum())
    for number in range(FOLDS):
        test = fold == number
        ridge = Ridge(alpha=np.square(points).sum() / len(points), fit_intercept=False)
        ridge.fit(points[~test], labels[~test])
        np.testing.assert_allclose(said[test], ridge.predict(points[test]), rtol=1e-6, atol=1e-12)


def test_t_of_independent_vectors_is_welchs(pooled, halves):
    found = Moments(pooled).by_dimension(pooled.exchange.observed)
    expected = stats.ttest_ind(*halves, equal_var=False).statistic
    np.testing.assert_allclose(found["t"], expected, rtol=0.02)
    spread = np.log(halves[0].std(0) / halves[1].std(0))
    np.testing.assert_allclose(found["log_std_ratio"], spread, rtol=1e-4, atol=1e-5)


def test_t_of_pairs_is_that_of_their_differences(pool):
    a = independent(40, 5, seed=0)
    b = [x + 0.3 * y for x, y in zip(a, independent(40, 5, seed=1, shift=1, moved=2), strict=True)]
    pooled = pool(a, b, paired=True)
    found = Moments(pooled).by_dimension(pooled.exchange.observed)
    expected = stats.ttest_rel(np.concatenate(a), np.concatenate(b)).statistic
    np.testing.assert_allclose(found["t"], expected, rtol=1e-3)


def test_frames_that_are_repeated_say_nothing_new(pool):
    a, b = independent(20, 5, seed=0), independent(25, 5, seed=1)
    once = pool(a, b)
    often = pool([np.repeat(x, 7, 0) for x in a], [np.repeat(x, 7, 0) for x in b])
    t = [Moments(x).by_dimension(x.exchange.observed)["t"] for x in (once, often)]
    np.testing.assert_allclose(t[0], t[1], rtol=1e-4)


def test_a_dimension_that_never_varies_is_no_difference(pool):
    a, b = independent(20, 5, seed=0), independent(25, 5, seed=1)
    for frames in (*a, *b):
        frames[:, 2] = 7.25
    pooled = pool(a, b)
    for measure in (Moments, StepFunctions, Divergences):
        columns = measure(pooled).by_dimension(pooled.exchange.observed)
        assert all(np.isfinite(column).all() for column in columns.values())
        values = measure(pooled).values(pooled.exchange.observed)
        assert all(np.isfinite(value) for value in values.values())
    assert Moments(pooled).by_dimension(pooled.exchange.observed)["t"][2] == 0


def test_measures_say_what_they_need(pool):
    few = pool(independent(4, 5, seed=0), independent(9, 5, seed=1))
    assert "needs 10 vectors or more on each side, and there are 4" in Frechet.refusal(few)
    assert "more than 8 dimensions, and there are 5" in PrincipalAngles.refusal(few)
    assert WhichModel.refusal(few) == ""
    fewer = pool(independent(4, 9, seed=0), independent(5, 9, seed=1))
    assert "a probe needs 10 episodes or more, and there are 9" in WhichModel.refusal(fewer)


@pytest.mark.parametrize(("turned", "correlation"), [(False, 1.0), (True, 0.0)])
def test_pairs_that_are_turned_are_alike_as_a_whole_but_not_by_dimension(turned, correlation):
    vectors = np.concatenate(correlated(25, 4, 16, seed=0))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    other = (vectors @ turn).astype(np.float32) if turned else vectors
    found = {x.name: x for x in how_alike(vectors, other, np.repeat(np.arange(25), 4))}
    assert found["cka"].value == pytest.approx(1, abs=1e-4)
    assert found["cka"].p < 0.05
    assert abs(found["cka"].null_mean) < 0.3
    assert found["correlation"].value == pytest.approx(correlation, abs=0.35)


def test_unrelated_frames_have_no_unbiased_cka_where_a_biased_one_would_be_high():
    a, b = (np.concatenate(independent(90, 200, seed=seed)) for seed in (0, 1))
    found = {x.name: x for x in how_alike(a, b, np.arange(90))}
    centred = [x - x.mean(0) for x in (a, b)]
    biased = np.square(centred[0].T @ centred[1]).sum() / np.prod(
        [np.linalg.norm(x.T @ x) for x in centred]
    )
    assert biased > 0.6
    assert abs(found["cka"].value) < 0.1
    assert found["cka"].p > 0.05


def test_the_null_shows_what_frames_of_one_episode_do_to_cka():
    a, b = (np.concatenate(correlated(30, 3, 200, seed=seed)) for seed in (0, 1))
    found = {x.name: x for x in how_alike(a, b, np.repeat(np.arange(30), 3))}
    assert found["cka"].value > 0.6  # unbiased for independent frames alone
    assert found["cka"].null_mean == pytest.approx(found["cka"].value, abs=0.03)
    assert found["cka"].p > 0.05


def test_partners_are_of_other_episodes():
    unit = np.repeat([0, 1, 2, 3], [3, 1, 7, 4])
    partners = partner_rows(unit, np.random.default_rng(0))
    assert (unit[partners] != unit).all()
    assert len(set(unit[partners[unit == 2]])) == 1
    assert (np.diff(partners[unit == 2]) >= 0).all()
