import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_bridge.policies.delta_actions import to_absolute, to_delta
from jax_bridge.policies.normalisation import (
    FieldStatistics,
    load_norm_stats,
    normalise,
    unnormalise,
)

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())
GOLDEN = FACTS["normalize"]


def _statistics(**changes):
    rows = {key: np.asarray(value) for key, value in GOLDEN["stats"].items()} | changes
    return FieldStatistics(name="state", **rows)


def _write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def _example():
    return json.loads(json.dumps(FACTS["norm_stats_json_example"]))


@pytest.mark.parametrize(("kind", "key"), [("z_score", "z"), ("quantile", "quantile")])
def test_normalise_equals_openpi(kind, key):
    values = np.asarray(GOLDEN["x"])
    np.testing.assert_allclose(normalise(values, _statistics(), kind), GOLDEN[key], rtol=1e-12)


@pytest.mark.parametrize(("kind", "key"), [("z_score", "un_z"), ("quantile", "un_quantile")])
def test_unnormalise_equals_openpi_with_and_without_padding(kind, key):
    # The reference was given float32, as a model gives it.
    values, padded = np.float32(GOLDEN["x"]), np.float32(GOLDEN["x_padded32"])
    np.testing.assert_allclose(unnormalise(values, _statistics(), kind), GOLDEN[key], rtol=1e-12)
    found = unnormalise(padded, _statistics(), kind)
    np.testing.assert_allclose(found, GOLDEN[f"{key}_padded32"], rtol=1e-12)


def test_fewer_dimensions_take_the_first_statistics_as_openpi_does():
    values = np.asarray(GOLDEN["x"])[:, :7]
    found = normalise(values, _statistics(), "z_score")
    np.testing.assert_allclose(found, GOLDEN["z_on_first7"], rtol=1e-12)


def test_without_statistics_values_stay():
    values = np.asarray(GOLDEN["x"])
    np.testing.assert_array_equal(normalise(values, None, "quantile"), values)
    np.testing.assert_array_equal(unnormalise(values, None, "z_score"), values)


@given(
    value=st.floats(-1e3, 1e3),
    low=st.floats(-10, 10),
    size=st.floats(0, 10),
    kind=st.sampled_from(["z_score", "quantile"]),
)
def test_unnormalise_undoes_normalise(value, low, size, kind):
    rows = {"mean": low, "std": size, "q01": low, "q99": low + size}
    statistics = FieldStatistics(name="state", **{k: np.array([v]) for k, v in rows.items()})
    there = normalise(np.array([value]), statistics, kind)
    back = unnormalise(there, statistics, kind)
    np.testing.assert_allclose(back, [value], rtol=1e-9, atol=1e-9)


def test_too_many_dimensions_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`state` must have at most 8 dimensions.*got 9"):
        normalise(np.zeros(9), _statistics(), "z_score")
    with pytest.raises(ValueError, match=r"`state` must have at least 8 dimensions.*got 7"):
        unnormalise(np.zeros(7), _statistics(), "z_score")


def test_quantiles_that_are_not_there_are_missed_by_name():
    with pytest.raises(ValueError, match=r"hold q01 and q99 of state for quantile"):
        normalise(np.zeros(8), _statistics(q01=None), "quantile")


def test_a_norm_stats_file_is_read(tmp_path):
    stats = load_norm_stats(_write(tmp_path / "norm_stats.json", _example()))
    np.testing.assert_array_equal(stats.state.mean, GOLDEN["stats"]["mean"])
    np.testing.assert_array_equal(stats.actions.q99, GOLDEN["stats"]["q99"])


def test_the_digest_depends_on_the_numbers_alone(tmp_path):
    first = load_norm_stats(_write(tmp_path / "a.json", _example())).digest
    assert load_norm_stats(_write(tmp_path / "b.json", _example())).digest == first
    changed = _example()
    changed["norm_stats"]["actions"]["std"][3] += 1e-9
    assert load_norm_stats(_write(tmp_path / "c.json", changed)).digest != first


def test_a_file_without_quantiles_serves_the_z_score(tmp_path):
    content = _example()
    for entry in content["norm_stats"].values():
        del entry["q01"], entry["q99"]
    stats = load_norm_stats(_write(tmp_path / "norm_stats.json", content))
    assert stats.state.q01 is None
    assert normalise(np.zeros(8), stats.state, "z_score").shape == (8,)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("norm_stats"), r"the key 'norm_stats' at its top"),
        (lambda c: c["norm_stats"].pop("actions"), r"hold 'actions', .*with only \['state'\]"),
        (lambda c: c["norm_stats"]["state"].pop("std"), r"must hold state\.std, .*without"),
        (
            lambda c: c["norm_stats"]["state"]["mean"].pop(),
            r"give state equally many dimensions .*'mean': 7, 'std': 8",
        ),
        (
            lambda c: c["norm_stats"]["actions"].update(std=[float("nan")] * 8),
            r"finite numbers as actions\.std, but got \[nan",
        ),
        (
            lambda c: c["norm_stats"]["actions"].update(mean="high"),
            r"finite numbers as actions\.mean, but got high",
        ),
    ],
)
def test_a_damaged_norm_stats_file_says_what_is_wrong(tmp_path, damage, message):
    content = _example()
    damage(content)
    with pytest.raises(ValueError, match=message):
        load_norm_stats(_write(tmp_path / "norm_stats.json", content))


def test_a_file_that_is_absent_or_no_json_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"norm_stats\.json, but got .*absent\.json"):
        load_norm_stats(str(tmp_path / "absent.json"))
    (tmp_path / "stats.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match=r"`norm_stats` must be JSON, but got .*stats\.pkl"):
        load_norm_stats(str(tmp_path / "stats.pkl"))


def test_delta_and_absolute_actions_equal_openpi():
    fact = {key: np.asarray(value) for key, value in FACTS["delta_actions"].items()}
    mask = FACTS["delta_actions"]["mask"]
    absolute = to_absolute(fact["actions"], fact["state"], mask)
    np.testing.assert_allclose(absolute, fact["absolute"], rtol=0, atol=1e-7)
    delta = to_delta(fact["actions"], fact["state"], mask)
    np.testing.assert_allclose(delta, fact["delta"], rtol=0, atol=1e-7)


def test_a_delta_mask_longer_than_the_state_is_refused():
    with pytest.raises(ValueError, match=r"`mask` must not be longer .*state \(2\), but got 3"):
        to_absolute(np.zeros((1, 7)), np.zeros(2), (True, True, False))
