"""Normalisation statistics: against numpy, against openpi's own, and what is refused."""

import json
import pathlib

import numpy as np
import pytest

from jax_bridge.policies.data_statistics import count_statistics

FACTS = pathlib.Path(__file__).parents[4] / "shared/golden/facts_pre_post_processing.json"


def batches(rows, size):
    return lambda: (rows[i : i + size] for i in range(0, len(rows), size))


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return random.normal([5, -1, 0], [1, 100, 1e-3], (5000, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_statistics_are_those_of_numpy_however_the_stream_is_cut(rows, size):
    found = count_statistics("state", batches(rows, size)).statistics
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.std, exact.std(0), rtol=1e-9)
    np.testing.assert_array_equal(found.q01, np.quantile(exact, 0.01, axis=0))
    np.testing.assert_array_equal(found.q99, np.quantile(exact, 0.99, axis=0))


def test_percentiles_out_of_memory_stay_within_the_error_that_is_stated(rows):
    whole = count_statistics("state", batches(rows, 500))
    small = count_statistics("state", batches(rows, 500), memory=1000)
    assert not whole.quantile_error.any()
    assert (small.quantile_error > 0).all()
    exact = np.sort(rows.astype(np.float64), axis=0)
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        # The row that has reached the share; numpy's percentile lies between two rows.
        row = exact[int(np.ceil(share * len(exact))) - 1]
        off = np.abs(getattr(small.statistics, name) - row)
        assert (off <= small.quantile_error).all()
    np.testing.assert_array_equal(small.statistics.mean, whole.statistics.mean)


def test_openpis_percentiles_lie_within_its_own_bins_of_ours():
    if not FACTS.is_file():
        pytest.skip(f"{FACTS.name} is not there")
    facts = json.loads(FACTS.read_text())["running_stats"]
    updates = np.random.Generator(np.random.PCG64(8)).standard_normal((4, 250, 3)) * [1, 5, 0.1]
    found = count_statistics("actions", lambda: iter(updates)).statistics
    np.testing.assert_allclose(found.mean, facts["mean"], rtol=1e-9)
    np.testing.assert_allclose(found.std, facts["std"], rtol=1e-9)
    bin_width = np.ptp(updates.reshape(-1, 3), axis=0) / 5000
    # 1,000 rows: the percentile itself moves by a gap between rows, beyond openpi's bins.
    ordered = np.sort(updates.reshape(-1, 3), axis=0)
    for name, place in (("q01", 10), ("q99", 990)):
        gap = np.ptp(ordered[place - 3 : place + 3], axis=0)
        assert (np.abs(getattr(found, name) - facts[name]) <= 2 * bin_width + gap).all()


def test_dimensions_that_never_move_are_named(rows):
    still = rows.copy()
    still[:, 1] = 4.0
    found = count_statistics("actions", batches(still, 100))
    assert found.degenerate == [1]
    again = count_statistics("actions", batches(still, 100), memory=0)
    assert again.degenerate == [1]
    assert again.statistics.q01[1] == 4.0


def test_rows_that_are_missing_or_not_finite_are_refused(rows):
    with pytest.raises(ValueError, match="`state` must have at least one row"):
        count_statistics("state", lambda: iter([rows[:0]]))
    bad = rows.copy()
    bad[1234, 2] = np.nan
    with pytest.raises(ValueError, match="row 1234 is NaN"):
        count_statistics("state", batches(bad, 100))
