"""Rollouts: who drives, when latents are captured, how an episode ends, and resuming."""

import json
import threading

import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec
from jax_bridge.rollouts.collect import Collector, CollectPlan
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.shards import EpisodeRecorder, open_dataset

FIELD = "vlm.hidden_states.text.mean"


class Silent:
    def __init__(self):
        self.updates = 0

    def update(self, report):
        self.updates += 1


@pytest.fixture
def run(tmp_path):
    def run(environment, policy, *, tasks=range(1), episodes=range(1), retry=False, **protocol):
        plan = CollectPlan(
            tasks=tasks,
            episodes=episodes,
            protocol=RolloutProtocol(**{"max_steps": 12, **protocol}),
            capture=CaptureSpec.preset("pooled"),
            images="none",
            retry_errors=retry,
        )
        report = Collector(environment, policy, plan).run(str(tmp_path / "data"), Silent())
        return report, open_dataset(str(tmp_path / "data"))

    return run


def column(dataset, name):
    return dataset.index[name].to_pylist()


def test_policy_drives_and_every_driving_call_is_captured(run, environment, policy):
    report, dataset = run(environment, policy, replan=5)
    assert column(dataset, "timestep") == [0, 5, 10]
    assert column(dataset, "call") == [0, 1, 2]
    assert report.samples == 3
    assert dataset.read(FIELD)[:, 0, 0].tolist() == [0, 5, 10]
    assert np.allclose([a[0] for a in environment.sent[:6]], [0, 0.1, 0.2, 0.3, 0.4, 0.05])


def test_a_stride_beside_the_replanning_adds_watching_calls(run, environment, policy):
    _, dataset = run(environment, policy, replan=5, stride=4)
    assert column(dataset, "timestep") == [0, 4, 8]
    assert column(dataset, "call") == [0, None, None]
    captured = [key[4:] for key, capture in policy.calls if capture]
    plain = [key[4:] for key, capture in policy.calls if not capture]
    assert captured == [("call", 0), ("watch", 4), ("watch", 8)]
    assert plain == [("call", 1), ("call", 2)]


def test_watching_does_not_change_what_is_sent(counting, policy, run, tmp_path):
    plain, watched = counting(), counting()
    run(plain, policy, replan=5)
    plan = CollectPlan(
        tasks=range(1),
        episodes=range(1),
        protocol=RolloutProtocol(max_steps=12, stride=1),
        capture=CaptureSpec.preset("pooled"),
        images="none",
    )
    Collector(watched, policy, plan).run(str(tmp_path / "watched"), Silent())
    assert np.array_equal(plain.sent, watched.sent)


def test_a_demonstrator_drives_with_noise_and_the_policy_watches(run, environment, policy):
    _, dataset = run(environment, policy, drive="demonstrator", noise=0.1, stride=6)
    assert column(dataset, "timestep") == [0, 6]
    assert column(dataset, "call") == [None, None]
    sent = np.array(environment.sent)
    assert np.all(sent[:, 3:] == 0.25)
    assert np.std(sent[:, :3]) > 0.03
    assert np.allclose(dataset.read_robot("executed")[1], sent[6])


def test_success_ever_and_success_at_end_are_kept_apart(run, counting, policy):
    report, dataset = run(counting(success_at=3, lost_at=5), policy, after_success=4)
    assert column(dataset, "success")[0] is True
    assert column(dataset, "success_at_end")[0] is False
    assert column(dataset, "episode_length")[0] == 7
    assert column(dataset, "outcome")[0] == "success"
    assert report.successes == 1


def test_an_episode_ends_at_its_limit_as_a_failure(run, environment, policy):
    _, dataset = run(environment, policy, max_steps=9)
    assert column(dataset, "episode_length")[0] == 9
    assert column(dataset, "outcome")[0] == "failure"


def test_ground_truth_belongs_to_the_captured_step(run, environment, policy):
    _, dataset = run(environment, policy, stride=4)
    assert [json.loads(t)["count"] for t in column(dataset, "truth")] == [0, 4, 8]


def test_a_failing_environment_ends_its_episode_and_not_the_run(run, counting, policy):
    environment = counting(fails=[(0, 1, 3)])
    report, dataset = run(environment, policy, tasks=range(2), episodes=range(2))
    assert report.episodes == 3
    assert report.errors == ["counting task 0 episode 1: RuntimeError: exploded at step 3"]
    keys = {
        (t, e) for t, e in zip(column(dataset, "task_id"), column(dataset, "episode"), strict=True)
    }
    assert keys == {(0, 0), (1, 0), (1, 1)}
    assert environment.closed == 1


def test_ground_truth_that_cannot_be_stored_is_the_environments_error(run, counting, policy):
    environment = counting()
    environment.truth = lambda: {"height": float("nan") if environment.timestep == 5 else 0.0}
    report, dataset = run(environment, policy, episodes=range(2))
    assert report.episodes == 0
    assert "Out of range float" in report.errors[0]
    assert len(dataset.errors) == 2


def test_resuming_runs_only_what_is_missing(run, counting, policy):
    run(counting(), policy, episodes=range(2))
    report, dataset = run(counting(), policy, episodes=range(4))
    assert (report.skipped, report.episodes) == (2, 2)
    assert sorted(set(column(dataset, "episode"))) == [0, 1, 2, 3]


def test_episodes_that_ended_in_an_error_run_again_on_demand(run, counting, policy):
    run(counting(fails=[(0, 0, 2)]), policy, episodes=range(2))
    report, _ = run(counting(), policy, episodes=range(2))
    assert report.skipped == 2
    report, dataset = run(counting(), policy, episodes=range(2), retry=True)
    assert (report.skipped, report.episodes) == (1, 1)
    assert sorted(set(column(dataset, "episode"))) == [0, 1]


def test_another_protocol_in_the_same_folder_is_refused(run, counting, policy):
    run(counting(), policy, replan=5)
    with pytest.raises(ValueError, match="replan"):
        run(counting(), policy, replan=4)


def test_a_suite_without_demonstrator_is_an_error_at_once(run, counting, policy):
    with pytest.raises(ValueError, match="got demonstrator"):
        run(counting(demonstrated=False), policy, drive="demonstrator")


@pytest.mark.parametrize(
    ("name", "value"),
    [("stride", 0), ("replan", -1), ("max_steps", 0), ("noise", -0.5), ("after_success", -2)],
)
def test_protocol_refuses_impossible_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .*{value}"):
        RolloutProtocol(**{name: value})


def test_noise_needs_a_demonstrator():
    with pytest.raises(ValueError, match=r"but got 0\.4\. Add --drive demonstrator"):
        RolloutProtocol(noise=0.4)


def test_a_chunk_cannot_be_sent_beyond_its_end(run, environment, policy, tmp_path):
    with pytest.raises(ValueError, match=r"`replan` must be at most 6, .* but got 7"):
        run(environment, policy, replan=7)
    assert not (tmp_path / "data").exists()
    run(environment, policy, replan=7, drive="demonstrator")


@pytest.mark.parametrize("protocol", [
    {}, {"stride": 4}, {"stride": 10}, {"drive": "demonstrator"},
    {"drive": "demonstrator", "stride": 12},
])  # fmt: skip
def test_calls_are_counted_beforehand(run, environment, policy, protocol):
    run(environment, policy, **protocol)
    assert len(policy.calls) == RolloutProtocol(max_steps=12, **protocol).calls


def test_the_bar_knows_from_the_start_what_was_there(tmp_path, counting, policy):
    plan = CollectPlan(
        tasks=range(1), episodes=range(2), protocol=RolloutProtocol(max_steps=12),
        capture=CaptureSpec.preset("pooled"), images="none",
    )  # fmt: skip
    Collector(counting(), policy, plan).run(str(tmp_path), Silent())
    watcher = Silent()
    report = Collector(counting(), policy, plan).run(str(tmp_path), watcher)
    assert (report.skipped, watcher.updates) == (2, 1)


def test_the_seed_reaches_the_samplers_noise(run, environment, policy):
    run(environment, policy, seed=5)
    assert policy.calls[0][0] == (5, "counting", 0, 0, "call", 0)


def test_the_policy_goes_on_while_a_sample_is_written(run, environment, policy, monkeypatch):
    """The first sample is held back until the third call: writing in turn would never get there."""
    third = threading.Event()
    append, infer = EpisodeRecorder.append, type(policy).infer
    overlapped = []

    def held(self, **sample):
        overlapped.append(third.wait(20))
        append(self, **sample)

    def counted(self, *given, **words):
        output = infer(self, *given, **words)
        if len(self.calls) == 3:
            third.set()
        return output

    monkeypatch.setattr(EpisodeRecorder, "append", held)
    monkeypatch.setattr(type(policy), "infer", counted)
    report, dataset = run(environment, policy, replan=3)
    assert report.samples == len(overlapped) == 4
    assert all(overlapped)
    assert column(dataset, "timestep") == [0, 3, 6, 9]
