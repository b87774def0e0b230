"""Streaming sums against numpy on the whole matrix."""

import numpy as np
import pytest
from scipy import stats

from lightning_modules.context.cell_statistics import CellStatistics, plan_bins
from lightning_modules.context.dimension_table import SHARES, dimension_table, spectrum_of
from lightning_modules.context.kept_vectors import KeptVectors
from lightning_modules.context.log_bins import LogBins
from lightning_modules.context.stability import design_effect, stability_curves
from lightning_modules.context.vector_sums import BLOCK, VectorSums


def summed(rows, cuts, covariance=True):
    sums = VectorSums(rows.shape[1], bins=LogBins(6), covariance=covariance)
    for part in np.split(rows, cuts):
        sums.update(part)
    sums.flush()
    return sums


def close(one, two, scale=1.0):
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12 * scale)


@pytest.fixture(scope="module")
def rows():
    """Dimensions of very different sizes, offsets and skews; one is constant."""
    random = np.random.default_rng(0)
    found = random.normal(size=(BLOCK + 900, 24)) * np.geomspace(1e-4, 1e4, 24)
    found += np.linspace(-300, 300, 24) * np.geomspace(1e-4, 1, 24)
    found[:, 5] = np.exp(found[:, 5])
    found[:, 7] = -3.25
    return found.astype(np.float32)


def test_moments_agree_with_numpy_on_the_whole_matrix(rows):
    sums = summed(rows, [10, 1000, 1001, 4800])
    whole = rows.astype(np.float64)
    table = dimension_table(sums)
    close(table.mean, whole.mean(0), np.abs(whole).max())
    np.testing.assert_allclose(table.std, whole.std(0, ddof=1), rtol=1e-9, atol=1e-12)
    varies = np.arange(24) != 7
    np.testing.assert_allclose(
        table.skew[varies], stats.skew(whole[:, varies]), rtol=1e-7, atol=1e-9
    )
    assert np.isnan(table.skew[7])
    assert (table.low == whole.min(0)).all()
    assert (table.high == whole.max(0)).all()
    assert np.flatnonzero(table.constant).tolist() == [7]
    scale = np.outer(whole.std(0), whole.std(0)).max()
    np.testing.assert_allclose(sums.covariance, np.cov(whole.T), rtol=1e-9, atol=1e-12 * scale)


def test_quantiles_keep_their_stated_error(rows):
    sums = summed(rows, [])
    true = np.quantile(rows, SHARES, axis=0, method="inverted_cdf").astype(np.float64)
    error = np.abs(dimension_table(sums).quantiles - true)
    allowed = sums.bins.relative_error * np.abs(true) + sums.bins.absolute_error
    assert (error <= allowed).all()
    assert (error > 0.1 * allowed).any()  # bins, not the numbers themselves


def test_extreme_numbers_fall_into_a_bin_and_keep_their_order():
    values = np.array([-3e38, -1e-30, -0.0, 0, 1e-45, 1e-7, 2.5, 3e38], np.float32)[:, None]
    bins = LogBins(6)
    counts = np.zeros((1, bins.size), np.int64)
    bins.add(counts, values)
    assert counts.sum() == 8
    assert counts[0, 0] == counts[0, -1] == 1
    assert counts[0, bins.top] == 5
    found = bins.quantiles(counts, np.linspace(0, 1, 9))[:, 0]
    assert (np.diff(found) >= 0).all()
    assert found[-2] == pytest.approx(2.5, rel=bins.relative_error)


@pytest.mark.parametrize("cuts", [[1], [3, 4, 5, 4999], list(range(0, 4996, 64))])
def test_sums_do_not_depend_on_how_the_stream_is_cut(rows, cuts):
    one, other = summed(rows, []), summed(rows, cuts)
    for name in ("count", "mean", "second", "third", "counts", "low", "high"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(one.covariance, other.covariance)


def test_merged_sums_are_those_of_all_rows(rows):
    one, parts = summed(rows, []), [summed(p, []) for p in np.split(rows, [700, 4000])]
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].count == one.count
    assert np.array_equal(parts[0].counts, one.counts)
    close(parts[0].mean, one.mean, np.abs(one.mean).max())
    varies = np.arange(24) != 7
    np.testing.assert_allclose(parts[0].second[varies], one.second[varies], rtol=1e-12)
    spread = np.sqrt(np.outer(one.second, one.second)) + 1e-30
    upper = np.triu_indices(24)
    error = np.abs(parts[0].products - one.products)[upper] / spread[upper]
    assert error[np.isfinite(error)].max() < 1e-12


def test_massive_dimensions_are_large_and_far_beyond_their_vectors_median():
    rows = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32) * 0.05
    rows[:10, 3] = 150.0  # over 1000 times a median of about 0.03
    rows[:10, 4] = 90.0
    rows[20] = 200.0  # the median is as large
    assert np.flatnonzero(summed(rows, []).massive).tolist() == [3]
    assert summed(rows, []).massive[3] == 10


def test_the_effective_rank_counts_equal_directions():
    rows = np.random.default_rng(0).normal(size=(20000, 12)).astype(np.float32)
    rows[:, 5:] = rows[:, :1]  # five directions, one of them eight times as wide
    equal = spectrum_of(summed(rows[:, :5], []).covariance)
    assert equal.effective_rank == pytest.approx(5, abs=0.01)
    assert equal.for_90 == 5
    wide = spectrum_of(summed(rows, []).covariance)
    shares = np.array([8, 1, 1, 1, 1]) / 12
    assert wide.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=0.02)
    assert wide.participation == pytest.approx(1 / np.square(shares).sum(), rel=0.02)
    assert spectrum_of(np.zeros((3, 3))) is None


def test_vectors_that_are_not_finite_are_counted_named_and_left_out():
    rows = np.ones((6, 3), np.float32)
    rows[1, 0], rows[4] = np.nan, np.inf
    part = CellStatistics(3, bins=LogBins(4), covariance=True)
    part.update(rows, np.arange(10, 16))
    part.flush()
    assert (part.not_finite.samples, part.not_finite.numbers) == (2, 4)
    assert part.not_finite.first == [11, 14]
    assert part.vectors.count == part.lengths.count == 4


def test_bins_are_as_fine_as_the_memory_allows():
    wide = plan_bins([2048] * 3, covariance=False, memory_budget=2**30)
    narrow = plan_bins([2048] * 3, covariance=False, memory_budget=2**28)
    assert wide.bits > narrow.bits
    assert narrow.relative_error == 2 ** -(narrow.bits + 1)
    with pytest.raises(ValueError, match=r"for 3 cells of up to 2048 dimensions, but got 1,000"):
        plan_bins([2048] * 3, covariance=True, memory_budget=1000)


def test_what_is_kept_depends_neither_on_the_order_nor_on_the_cut():
    rows = np.arange(500)
    vectors = np.random.default_rng(0).normal(size=(500, 2, 3)).astype(np.float32)

    def kept(order, cut, parts=1):
        found = [KeptVectors(40, seed=1) for _ in range(parts)]
        for number, chosen in enumerate(np.array_split(order, cut)):
            found[number % parts].update(vectors[chosen], chosen, chosen // 10)
        for other in found[1:]:
            found[0].merge(other)
        found[0].sort()
        return found[0]

    one = kept(rows, 1)
    other = kept(np.random.default_rng(2).permutation(rows), 17, parts=3)
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.vectors, other.vectors)
    assert len(one.rows) == 40
    assert 150 < one.rows.mean() < 350


def test_the_design_effect_of_repeated_frames_is_their_number():
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, 50)).astype(np.float32)
    units = np.repeat(np.arange(200), 5)
    assert design_effect(np.repeat(centres, 5, axis=0), units) == pytest.approx(5, rel=0.05)
    free = random.normal(size=(1000, 50)).astype(np.float32)
    assert design_effect(free, units) == pytest.approx(1, abs=0.15)


def test_stability_falls_with_the_root_of_the_sample_and_counts_episodes():
    free = np.random.default_rng(0).normal(size=(800, 30)).astype(np.float32)
    curves = {c.name: c for c in stability_curves(free, np.arange(800))}
    means = curves["means"]
    assert means.rows[-1] == 400
    expected = np.sqrt(2 / np.array(means.rows))
    np.testing.assert_allclose(means.middle, expected, rtol=0.25)
    assert all(
        low <= mid <= high
        for low, mid, high in zip(means.low, means.middle, means.high, strict=True)
    )
    repeated = np.repeat(free[:40], 20, axis=0)
    clustered = {c.name: c for c in stability_curves(repeated, np.repeat(np.arange(40), 20))}
    last = clustered["means"]
    assert (last.rows[-1], last.units[-1]) == (400, 20)
    assert last.middle[-1] > 3 * means.middle[-1]  # 20 episodes, not 400 rows
    assert stability_curves(repeated, np.zeros(800, np.int64)) == []
