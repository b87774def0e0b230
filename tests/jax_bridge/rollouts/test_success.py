"""Rates from what was recorded, with Wilson's interval."""

import pytest

from jax_bridge.rollouts.success import SuccessRate, success_rates
from jax_bridge.shards import open_dataset
from tests.planted import write_planted


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (8, 20, 0.21880, 0.61342)],
)
def test_the_interval_is_wilsons(successes, episodes, low, high):
    rate = SuccessRate("all", episodes, successes, successes)
    assert rate.interval == pytest.approx((low, high), abs=1e-4)
    assert rate.to_json()["rate"] == successes / episodes


def test_every_task_is_counted_by_episodes_and_all_of_them_last(tmp_path):
    dataset = open_dataset(write_planted(tmp_path / "data"))
    rates = success_rates(dataset)
    rows = dataset.index.select(["task_id", "episode", "success"]).to_pylist()
    outcomes = {(r["task_id"], r["episode"]): r["success"] for r in rows}
    assert rates[-1].name == "all"
    assert rates[-1].episodes == len(outcomes)
    assert rates[-1].successes == sum(outcomes.values())
    assert sum(rate.episodes for rate in rates[:-1]) == len(outcomes)
    assert len(rates) == 1 + len({task for task, _ in outcomes})
