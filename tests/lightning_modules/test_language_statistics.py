import numpy as np
import pytest
from scipy.stats import f_oneway, pointbiserialr
from scipy.stats import t as t_distribution
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from lightning_modules.language.bands import mean_with_band
from lightning_modules.language.drift import drift
from lightning_modules.language.fold_ridge import FoldRidge
from lightning_modules.language.hsic import cka, hsic, hsic_without_each, kernel
from lightning_modules.language.jackknife import JackknifeSums, jackknife_interval
from lightning_modules.language.max_statistic import (
    MaxStatistic,
    flipped_t,
    permuted_labels,
    sign_flips,
)
from lightning_modules.language.separability import variance_ratio, variance_sums
from lightning_modules.language.success_tests import areas, correlations, standardised


def naive_hsic(one: np.ndarray, two: np.ndarray) -> float:
    """HSIC_1 as the paper writes it, with matrices."""
    n, ones = len(one), np.ones(len(one))
    k, m = one - np.diag(np.diag(one)), two - np.diag(np.diag(two))
    value = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (value - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))


def test_hsic_is_that_of_the_paper_with_and_without_each_sample():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(9, 2, 4)), random.normal(size=(9, 2, 3))
    one, two = kernel(x), kernel(y)
    found, without = hsic(one, two), hsic_without_each(one, two)
    for cell in range(2):
        full = (x[:, cell] @ x[:, cell].T, y[:, cell] @ y[:, cell].T)
        assert found[cell] == pytest.approx(naive_hsic(*full), rel=1e-9)
        for out in range(9):
            kept = np.delete(np.arange(9), out)
            expected = naive_hsic(one[cell][np.ix_(kept, kept)], two[cell][np.ix_(kept, kept)])
            assert without[cell, out] == pytest.approx(expected, rel=1e-9)


def test_cka_is_one_for_a_rotation_and_unbiased_without_dependence():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 1, 6))
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    one, two = kernel(x), kernel(3 * x @ turn)
    assert cka(hsic(one, two), hsic(one, one), hsic(two, two))[0] == pytest.approx(1)
    # The biased CKA of 12 independent samples of 30 dimensions is near 0.7; ours scatters around 0.
    found = []
    for _ in range(300):
        a, b = (kernel(random.normal(size=(12, 1, 30))) for _ in range(2))
        found.append(cka(hsic(a, b), hsic(a, a), hsic(b, b))[0])
    assert abs(np.nanmean(found)) < 3 * np.nanstd(found) / np.sqrt(300)


def test_hsic_over_blocks_estimates_the_same():
    random = np.random.default_rng(1)
    x = random.normal(size=(400, 1, 3))
    y = x + random.normal(size=x.shape)
    whole = hsic(kernel(x), kernel(y))[0]
    blocks = [hsic(kernel(x[i : i + 50]), kernel(y[i : i + 50]))[0] for i in range(0, 400, 50)]
    assert np.mean(blocks) == pytest.approx(whole, rel=0.1)


def test_the_ratio_of_variances_is_that_of_an_analysis_of_variance():
    random = np.random.default_rng(0)
    group = np.array([5, 5, 5, 7, 7, 8, 8, 8, 8, 9])
    x = random.normal(size=(10, 2, 1)) + group[:, None, None]
    value, without = variance_sums(x, group)
    for cell in range(2):
        parts = [x[group == g, cell, 0] for g in np.unique(group)]
        between, of_between, within, of_within, share = value[:, cell]
        f = between / of_between / (within / of_within)
        assert f == pytest.approx(f_oneway(*parts).statistic)
        size = (10 - sum(len(part) ** 2 for part in parts) / 10) / 3
        assert share / of_between == pytest.approx(size)
        assert variance_ratio(value)[cell] == pytest.approx((f - 1) / size)
    for out in range(10):
        kept = np.delete(np.arange(10), out)
        expected, _ = variance_sums(x[kept], group[kept])
        np.testing.assert_allclose(without[out], expected, atol=1e-9)


def test_the_ratio_is_zero_on_average_where_the_instruction_makes_no_difference():
    random = np.random.default_rng(0)
    group = np.arange(40) % 5
    ratios = [variance_ratio(variance_sums(random.normal(size=(40, 1, 20)), group)[0])[0]
              for _ in range(200)]  # fmt: skip
    assert np.mean(ratios) == pytest.approx(0, abs=3 * np.std(ratios) / np.sqrt(200))


def test_the_jackknife_of_a_mean_is_its_t_interval():
    random = np.random.default_rng(0)
    x = random.normal(size=15)
    without = np.array([np.delete(x, i).mean() for i in range(15)])
    (low,), (high,) = jackknife_interval(x.mean(keepdims=True), without[:, None])
    half = 2.1447867 * x.std(ddof=1) / np.sqrt(15)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half))


def test_sums_over_blocks_have_the_interval_of_the_whole():
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 1, 1))
    whole, blocks = JackknifeSums(), JackknifeSums()

    def add(sums: JackknifeSums, part: np.ndarray) -> None:
        total = np.stack([part[..., 0].sum(0), np.full(1, float(len(part)))])
        sums.add(total, total - np.stack([part[..., 0], np.ones((len(part), 1))], 1))

    add(whole, x)
    add(blocks, x[:5])
    add(blocks, x[5:])
    results = [s.statistic(lambda q: q[0] / q[1]) for s in (whole, blocks)]
    np.testing.assert_allclose(results[0], results[1])


def test_drift_starts_at_the_first_step_that_an_episode_has():
    latents = np.array([[[[1.0, 0]], [[0, 2.0]], [[3.0, 0]]]] * 2, np.float32)
    there = np.array([[True, True, True], [False, True, True]])
    cosine, distance = drift(latents, there)
    np.testing.assert_allclose(cosine[0, :, 0], [1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(distance[0, :, 0], [0, np.sqrt(5), 2], rtol=1e-6)
    np.testing.assert_allclose(cosine[1, :, 0], [np.nan, 1, 0], atol=1e-7)


def test_readings_are_those_of_scikit_learns_ridge_on_the_other_folds(monkeypatch):
    monkeypatch.setattr("lightning_modules.language.fold_ridge.STRENGTHS", (0.3,))
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 2, 5)) * np.array([1, 10, 0.1, 3, 1]) + 100
    y = x[:, 0, :3] + random.normal(size=(60, 3))
    fold = np.arange(60) % 4
    ridge = FoldRidge(4, 2, 5, 3)
    for part in (slice(0, 13), slice(13, 60)):  # however the stream is cut
        ridge.add(x[part], y[part], fold[part])
    found = ridge.solve().read(x, fold)
    for out in range(4):
        rest = fold != out
        for cell in range(2):
            scale = StandardScaler().fit(x[rest, cell])
            model = Ridge(alpha=0.3 * rest.sum()).fit(scale.transform(x[rest, cell]), y[rest])
            expected = model.predict(scale.transform(x[~rest, cell]))
            np.testing.assert_allclose(found[~rest, cell], expected, rtol=1e-6, atol=1e-6)


def test_the_strength_is_chosen_on_episodes_that_are_left_out():
    # Many noisy features and few samples: the weakest strength is the worst.
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 1, 40))
    y = x[:, 0, :1] + 2 * random.normal(size=(60, 1))
    ridge = FoldRidge(5, 1, 40, 1)
    ridge.add(x, y, np.arange(60) % 5)
    assert min(ridge._strength(f, (f + 1) % 5, 0) for f in range(5)) >= 0.1


def test_a_feature_that_never_varies_does_no_harm():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 1, 3))
    x[..., 1] = 1e6
    ridge = FoldRidge(4, 1, 3, 1)
    ridge.add(x, x[:, 0, :1], np.arange(40) % 4)
    assert np.abs(ridge.solve().read(x, np.arange(40) % 4)[:, 0] - x[:, 0, :1]).max() < 0.05


def test_correlations_are_those_of_scipy_where_values_are_missing():
    random = np.random.default_rng(0)
    values, success = random.normal(size=(30, 3)), (np.arange(30) % 3 > 0).astype(float)
    values[:4, 1] = np.nan
    found = correlations(values, success[None])[0]
    for test in range(3):
        known = np.isfinite(values[:, test])
        expected = pointbiserialr(success[known], values[known, test]).statistic
        assert found[test] == pytest.approx(expected)
    weights = random.integers(0, 3, (1, 30)).astype(float)
    again = np.repeat(np.arange(30), weights[0].astype(int))
    drawn = correlations(values, success[None], weights)[0]
    expected = correlations(values[again], success[again][None])[0]
    np.testing.assert_allclose(drawn, expected)


def test_areas_are_those_of_scikit_learn_and_their_intervals_cover_the_truth():
    random = np.random.default_rng(0)
    success = (np.arange(60) % 3 > 0).astype(float)
    # Of two normals a distance 1 apart the area is Phi(1 / sqrt 2) = 0.7602.
    values = random.normal(size=(60, 400)) + success[:, None]
    found = areas(values, success)
    assert found[0, 0] == pytest.approx(roc_auc_score(success, values[:, 0]))
    covered = ((found[1] < 0.7602) & (found[2] > 0.7602)).mean()
    assert 0.92 < covered < 0.98


def test_too_few_failures_give_no_number():
    success = np.array([1.0] * 20 + [0.0] * 2)
    values = np.random.default_rng(0).normal(size=(22, 1))
    assert np.isnan(areas(values, success)).all()
    assert np.isnan(correlations(values, success[None])).all()


def family_wise_p(values: np.ndarray, success: np.ndarray, tasks: np.ndarray, seed: int):
    there = np.ones((len(success), 1), bool)
    (labels,) = permuted_labels(success, tasks, there, permutations=99, seed=seed)
    observed, permuted = standardised(
        correlations(values, success[None])[0], correlations(values, labels.astype(float))
    )
    largest = MaxStatistic(99)
    for chunk in np.array_split(np.arange(values.shape[1]), 3):
        largest.add(permuted[:, chunk])
    return largest.p_values(observed)


def test_success_that_goes_with_the_task_alone_is_found_no_more_often_than_the_level():
    # Values and success both depend on the task, and on nothing else that they share. 200 sets of
    # 40 tests: at a level of 0.1 the binomial 1 - 1e-4 quantile of sets with a finding is 37.
    random, sets = np.random.default_rng(0), 0
    tasks = np.arange(60) % 4
    for seed in range(200):
        success = (random.random(60) < 0.3 + 0.15 * tasks).astype(float)
        values = tasks[:, None] + random.normal(size=(60, 40))
        sets += np.nanmin(family_wise_p(values, success, tasks, seed)) <= 0.1
    assert 4 < sets < 38


def test_labels_are_exchanged_within_a_task_among_episodes_that_are_there():
    labels, tasks = np.array([1.0, 0, 1, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1])
    there = np.array([[True] * 7, [True, True, True, False, True, False, True]]).T
    for step, found in enumerate(permuted_labels(labels, tasks, there, permutations=50)):
        gone = ~there[:, step]
        assert (found[:, gone] == labels[gone]).all()
        for task in (0, 1):
            here = (tasks == task) & there[:, step]
            assert (found[:, here].sum(1) == labels[here].sum()).all()
            assert len(np.unique(found[:, here], axis=0)) > 1


def test_a_quantity_that_goes_with_success_within_tasks_is_found_among_many():
    random = np.random.default_rng(0)
    tasks, success = np.arange(60) % 4, (np.arange(60) // 4 % 3 > 0).astype(float)
    values = tasks[:, None] + random.normal(size=(60, 40))
    values[:, 17] += 1.5 * success
    p = family_wise_p(values, success, tasks, 0)
    assert p[17] < 0.05
    assert np.sort(p)[1] > 0.05


def test_changes_that_scatter_around_zero_are_found_no_more_often_than_the_level():
    random, sets = np.random.default_rng(0), 0
    for seed in range(200):
        flips = sign_flips(25, permutations=99, seed=seed)
        changes = random.normal(size=(25, 30)) + random.normal(size=(25, 1))
        changes[random.random(changes.shape) < 0.1] = np.nan
        largest = MaxStatistic(99)
        largest.add(flipped_t(changes, flips, fewest=6))
        observed = flipped_t(changes, np.ones((1, 25)), fewest=6)[0]
        sets += np.nanmin(largest.p_values(observed)) <= 0.1
    assert 4 < sets < 38


def test_bands_are_those_of_few_episodes_and_left_out_below_six():
    values = np.random.default_rng(5).normal(size=(12, 3))
    values[6:, 1] = values[5:, 2] = np.nan
    _, low, high, episodes = mean_with_band(values, draws=2000, seed=0)
    assert episodes.tolist() == [12, 6, 5]
    assert np.isnan([low[2], high[2]]).all()
    for place, count in ((0, 12), (1, 6)):
        own = values[:count, place]
        width = 2 * t_distribution.ppf(0.975, count - 1) * own.std(ddof=1) / count**0.5
        assert high[place] - low[place] == pytest.approx(width, rel=0.2)
