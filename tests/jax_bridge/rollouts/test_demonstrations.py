"""Demonstrations of a simulator: frames, the actions that follow, and no policy at all."""

import numpy as np
import pytest

from jax_bridge.demos.description import demonstrations_of
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.rollouts.collect import CollectPlan
from jax_bridge.rollouts.demonstrations import DemoCollector
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.shards import open_dataset
from jax_bridge.shards.sample_choice import SampleChoice
from tests.jax_bridge.rollouts.test_collect import Silent


@pytest.fixture
def record(tmp_path):
    def record(environment, *, images="png", horizon=4, episodes=range(1), **protocol):
        protocol = {"max_steps": 6, "drive": "demonstrator", **protocol}
        plan = CollectPlan(
            tasks=range(1), episodes=episodes, protocol=RolloutProtocol(**protocol),
            capture=CaptureSpec.preset("pooled"), images=images,
        )  # fmt: skip
        collector = DemoCollector(environment, plan, horizon=horizon)
        return collector.run(str(tmp_path / "demos"), Silent()), tmp_path / "demos"

    return record


class Counting:
    """Wraps the counting environment so that each action says which step it is of."""

    def __init__(self, environment):
        self._environment = environment

    def __getattr__(self, name):
        return getattr(self._environment, name)

    def demonstrator(self):
        return self

    def act(self):
        return np.full(7, self._environment.timestep / 10, np.float32)


def test_every_frame_has_its_picture_state_and_the_actions_that_follow(record, environment):
    report, path = record(Counting(environment))
    dataset = open_dataset(path)
    assert (report.episodes, report.samples) == (1, 6)
    assert dataset.index["timestep"].to_pylist() == list(range(6))
    assert dataset.read_robot("state")[:, 0].tolist() == list(range(6))
    chunks = dataset.read_robot("actions")[:, :, 0]
    assert np.allclose(chunks[1], [0.1, 0.2, 0.3, 0.4])
    assert np.allclose(chunks[4], [0.4, 0.5, 0.5, 0.5])
    assert dataset.read_robot("action_is_pad")[4].tolist() == [False, False, True, True]
    choice = SampleChoice(images=("base",), metadata=("instruction", "success"))
    sample = choice.read(dataset, np.array([3]))[0]
    assert (sample["images"]["base"] == 3).all()
    assert sample["metadata"] == {"instruction": "count to 0", "success": False}


def test_sizes_stand_in_the_description(record, environment):
    _, path = record(environment)
    found = demonstrations_of(open_dataset(path).info, path)
    assert (found.horizon, found.action_dim, found.state_dim) == (4, 7, 8)
    assert found.cameras == ("base",)


def test_noise_moves_what_is_sent_and_not_what_is_learnt(record, environment):
    _, path = record(environment, noise=0.5)
    dataset = open_dataset(path)
    executed = dataset.read_robot("executed")
    assert (dataset.read_robot("actions") == 0.25).all()
    assert np.array_equal(executed, np.array(environment.sent))
    assert np.std(executed[:, :3]) > 0.1
    assert (executed[:, 3:] == 0.25).all()


def test_a_stride_keeps_fewer_frames_and_the_same_actions(record, environment):
    _, path = record(Counting(environment), stride=2, images="none")
    dataset = open_dataset(path)
    assert dataset.index["timestep"].to_pylist() == [0, 2, 4]
    assert np.allclose(dataset.read_robot("actions")[1, :, 0], [0.2, 0.3, 0.4, 0.5])
    assert demonstrations_of(dataset.info, path).cameras == ()


def test_an_episode_ends_as_a_policys_does(record, counting):
    _, path = record(counting(success_at=2), after_success=1)
    dataset = open_dataset(path)
    assert len(dataset) == 3
    assert set(dataset.index["success"].to_pylist()) == {True}


def test_a_broken_episode_is_noted_and_a_second_run_goes_on(record, counting):
    broken = counting(fails=[(0, 1, 2)])
    report, path = record(broken, episodes=range(3))
    assert (report.episodes, len(report.errors)) == (2, 1)
    assert "exploded at step 2" in report.errors[0]
    report, _ = record(counting(), episodes=range(4))
    assert (report.episodes, report.skipped) == (1, 3)
    assert set(open_dataset(path).index["episode"].to_pylist()) == {0, 2, 3}


def test_the_same_settings_give_the_same_bytes(record, counting, tmp_path):
    _, path = record(counting(), noise=0.3)
    first = {p.name: p.read_bytes() for p in (path / "shards").glob("*.tar")}
    path.rename(tmp_path / "first")
    _, path = record(counting(), noise=0.3)
    assert {p.name: p.read_bytes() for p in (path / "shards").glob("*.tar")} == first


def test_what_cannot_be_recorded_is_said(record, counting):
    with pytest.raises(ValueError, match=r"`drive` must be demonstrator .* but got policy"):
        record(counting(), drive="policy")
    with pytest.raises(ValueError, match="must be policy for counting, but got demonstrator"):
        record(counting(demonstrated=False))
    with pytest.raises(ValueError, match="`horizon` must be positive, but got 0"):
        record(counting(), horizon=0)
