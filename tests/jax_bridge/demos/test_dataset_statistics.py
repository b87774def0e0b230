"""Normalisation statistics of demonstrations: which numbers count, and what seldom moves."""

import json

import numpy as np
import pytest

from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.demos.dataset_statistics import dataset_statistics, write_statistics
from jax_bridge.demos.delta_dims import parse_delta_dims
from jax_bridge.policies.data_statistics import count_statistics
from jax_bridge.policies.normalisation import load_norm_stats, normalise
from jax_bridge.shards import open_dataset
from tests.jax_bridge.demos.demo_data import write_demos


def test_every_action_of_every_chunk_counts(tmp_path):
    dataset = open_dataset(write_demos(tmp_path / "d"))
    seen = []
    stream = ChunkStream(dataset=dataset, rows=dataset.select(), batch_rows=50)
    found = dataset_statistics(stream, on_rows=seen.append)
    actions = dataset.read_robot("actions").reshape(-1, 3).astype(float)
    assert found.actions.rows == len(actions) == 120 * 8
    assert np.allclose(found.actions.statistics.mean, actions.mean(0), rtol=1e-12)
    assert np.allclose(found.actions.statistics.std, actions.std(0), rtol=1e-12)
    assert np.array_equal(found.actions.statistics.q99, np.quantile(actions, 0.99, axis=0))
    assert found.state.rows == 120
    assert sum(seen) == 240


def test_failed_demonstrations_can_be_left_out(tmp_path):
    dataset = open_dataset(write_demos(tmp_path / "d", failed=(0, 3)))
    assert len(ChunkStream.of(dataset).rows) == 120
    rows = ChunkStream.of(dataset, success_only=True).rows
    assert len(rows) == 80
    assert all(dataset.index.select(["success"]).take(rows)["success"].to_pylist())
    nobody = open_dataset(write_demos(tmp_path / "none", failed=range(6)))
    with pytest.raises(ValueError, match="that succeeded, but none of the 120 samples"):
        ChunkStream.of(nobody, success_only=True)


def test_a_dimension_that_seldom_moves_gets_its_full_range(tmp_path):
    values = np.zeros((1000, 3))
    values[5, 0], values[:, 1] = -3.0, np.linspace(0, 1, 1000)
    counted = count_statistics("actions", lambda: [values])
    assert counted.degenerate == [0, 2]
    assert counted.seldom_moving == [0]  # dimension 2 never moves, which does no harm
    kept = counted.with_full_range(counted.seldom_moving).statistics
    assert (kept.q01[0], kept.q99[0]) == (-3.0, 0.0)
    assert np.array_equal(kept.q01[1:], counted.statistics.q01[1:])
    nearly = values + np.linspace(0, 1e-3, 1000)[:, None]
    assert count_statistics("actions", lambda: [nearly]).seldom_moving == [0]


def test_openpis_file_is_written_and_the_rest_beside_it(tmp_path):
    dataset = open_dataset(write_demos(tmp_path / "d", still=(2,)))
    stream = ChunkStream.of(dataset, delta_mask=(True,))
    found = dataset_statistics(stream)
    write_statistics(tmp_path / "out" / "norm_stats.json", found, stream, widened=True)
    read = load_norm_stats(str(tmp_path / "out" / "norm_stats.json"))
    assert read.digest == found.usable().norm_stats.digest
    report = json.loads((tmp_path / "out" / "norm_stats.report.json").read_text())
    assert report["delta_mask"] == [True]
    assert report["actions"]["quantile_error"] == [0.0, 0.0, 0.0]
    assert report["actions"]["degenerate"] == [2]
    assert report["dataset"] == dataset.fingerprint


def test_where_no_state_was_recorded_actions_are_counted_alone(tmp_path):
    with_state, without = (
        ChunkStream.of(open_dataset(write_demos(tmp_path / name, state=state)))
        for name, state in (("with", True), ("without", False))
    )
    found = dataset_statistics(without)
    write_statistics(tmp_path / "norm_stats.json", found, without, widened=True)
    read = load_norm_stats(str(tmp_path / "norm_stats.json"))
    expected = dataset_statistics(with_state).usable().norm_stats
    assert read.actions.to_json() == expected.actions.to_json()
    assert read.state.mean.shape == read.state.pair("quantile")[0].shape == (0,)
    with pytest.raises(ValueError, match=r"`state` must have at most 0 dimensions"):
        normalise(np.zeros(3), read.state, "quantile")
    content = json.loads((tmp_path / "norm_stats.json").read_text())
    content["norm_stats"]["actions"]["mean"] = []
    (tmp_path / "norm_stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a list of finite numbers as actions.mean, but got \[\]"):
        load_norm_stats(str(tmp_path / "norm_stats.json"))


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("", None),
        ("0:2", (True, True)),
        ("1", (False, True)),
        ("0, 2:4", (True, False, True, True)),
    ],
)
def test_relative_dimensions_are_read(text, mask):
    assert parse_delta_dims(text, action_dim=5, state_dim=4) == mask


@pytest.mark.parametrize("text", ["a", "3:5", "0:9", "2:2", "1:2:3"])
def test_dimensions_that_do_not_exist_are_refused(text):
    with pytest.raises(ValueError, match=f"`--delta_dims` must .*but got '{text}'"):
        parse_delta_dims(text, action_dim=5, state_dim=4)
