"""Simulators in processes and one batched policy: the same data, however many processes."""

import functools
import sys
import types

import numpy as np
import pytest

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import CaptureSpec, Pi0Config
from jax_bridge.policies import pi0_policy
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.policies.policy import BatchedPolicy, PolicyCall
from jax_bridge.rollouts.collect import Collector, CollectPlan
from jax_bridge.rollouts.estimate import samples_in_memory
from jax_bridge.rollouts.lock_step import LockStepCollector
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.slots import by_slot, parse_shard, part_of
from jax_bridge.shards import open_dataset
from jax_bridge.shards.verify import verify_dataset
from tests.jax_bridge.rollouts.worlds import FIELD, Fragile, RowPolicy

POOLED = CaptureSpec.preset("pooled")


class Silent:
    def update(self, report):
        pass


def plan(episodes=range(5), *, batch=3, **changes):
    settings = {"max_steps": 8, "replan": 3, "batch": batch}
    return CollectPlan(
        tasks=changes.pop("tasks", range(2)), episodes=episodes, capture=POOLED, images="png",
        shard=changes.pop("shard", (0, 1)), protocol=RolloutProtocol(**{**settings, **changes}),
    )  # fmt: skip


def collect(folder, chosen, workers, *, policy=None, **world):
    collector = LockStepCollector(
        Fragile(**world), functools.partial(Fragile, **world), policy or RowPolicy(), chosen,
        workers=workers,
    )  # fmt: skip
    return collector.run(str(folder), Silent())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten episodes, stepped by one process."""
    folder = tmp_path_factory.mktemp("lock_step") / "one"
    policy = RowPolicy()
    report = collect(folder, plan(), 1, policy=policy)
    assert (report.episodes, report.samples, report.errors) == (10, 30, [])
    return folder, policy


def tars(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shards/*.tar")}


def contents(folder):
    """Everything that is kept of every sample, in the order of the index."""
    dataset = open_dataset(folder)
    images = dataset.read_members("base.png", range(len(dataset)))
    arrays = [dataset.read(FIELD)] + [dataset.read_robot(n) for n in ("state", "actions")]
    rows = dataset.metadata.drop(["shard"])
    return rows, [array.tobytes() for array in arrays], images


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_changes_no_byte(whole, tmp_path, workers):
    collect(tmp_path, plan(), workers)
    assert tars(tmp_path) == tars(whole[0])
    assert verify_dataset(tmp_path).problems == ()


def test_what_many_slots_write_is_what_one_simulator_writes(whole, tmp_path):
    Collector(Fragile(), RowPolicy(), plan()).run(str(tmp_path), Silent())
    one, other = contents(tmp_path), contents(whole[0])
    assert one[0].equals(other[0])
    assert one[1:] == other[1:]


def test_every_call_has_all_rows_and_every_episode_its_own(whole):
    _, policy = whole
    assert {len(batch) for batch in policy.batches} == {3}
    rows = {
        key[2:4]: row for batch in policy.batches for row, key in enumerate(batch) if key
    }  # fmt: skip
    assert rows == {(t, e): (t + e) % 3 for t in range(2) for e in range(5)}
    assert len(policy.batches) < 30 / 2  # rows were answered together


def test_a_run_that_was_stopped_goes_on_to_the_same_data(whole, tmp_path):
    collect(tmp_path, plan(range(2)), 2)
    report = collect(tmp_path, plan(), 3)
    assert (report.skipped, report.episodes) == (4, 6)
    one, other = contents(tmp_path), contents(whole[0])
    assert one[0].equals(other[0])
    assert one[1:] == other[1:]


def test_a_simulator_that_raises_ends_its_episode_alone(tmp_path):
    report = collect(tmp_path, plan(tasks=range(1)), 2, raises=[1])
    assert report.errors == ["tabletop task 0 episode 1: RuntimeError: exploded at step 4"]
    assert set(open_dataset(tmp_path).index["episode"].to_pylist()) == {0, 2, 3, 4}


def test_a_process_that_dies_is_replaced_and_its_episodes_are_noted(tmp_path):
    report = collect(tmp_path, plan(tasks=range(1), batch=2), 2, dies=[2])
    assert report.errors == [
        "tabletop task 0 episode 2: the simulator's process ended with exit code -9"
    ]
    assert set(open_dataset(tmp_path).index["episode"].to_pylist()) == {0, 1, 3, 4}
    assert verify_dataset(tmp_path).problems == ()


def test_a_process_that_dies_takes_all_its_slots_with_it(tmp_path):
    report = collect(tmp_path, plan(range(4), tasks=range(1), batch=4), 1, dies=[2])
    assert len(report.errors) == 4
    assert report.episodes == 0
    again = plan(range(4), tasks=range(1), batch=4)
    assert collect(tmp_path, again, 1).skipped == 4


def test_an_error_of_the_users_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="`drive` must be policy here, but got demonstrator"):
        collect(tmp_path, plan(drive="demonstrator"), 2, shy=True)


def test_a_demonstrator_drives_in_the_other_process(tmp_path):
    report = collect(tmp_path, plan(range(2), drive="demonstrator", noise=0.1, stride=4), 2)
    assert report.samples == 8
    near = tmp_path / "near"
    Collector(
        Fragile(), RowPolicy(), plan(range(2), drive="demonstrator", noise=0.1, stride=4)
    ).run(str(near), Silent())  # fmt: skip
    assert contents(near)[1:] == contents(tmp_path)[1:]


def test_more_processes_than_rows_are_refused():
    with pytest.raises(ValueError, match=r"`workers` must be 1 to 3, .* but got 4. Raise --batch"):
        LockStepCollector(Fragile(), Fragile, RowPolicy(), plan(), workers=4)


def test_hosts_share_a_plan_without_gap_or_overlap(tmp_path):
    wanted = list(range(11))
    parts = [list(part_of(wanted, i, 4)) for i in range(4)]
    assert [entry for part in parts for entry in part] == wanted
    assert {len(part) for part in parts} == {2, 3}
    for shard in ((0, 2), (1, 2)):
        Collector(Fragile(), RowPolicy(), plan(shard=shard)).run(str(tmp_path), Silent())
    assert len(open_dataset(tmp_path)) == 30


def test_neighbours_in_a_plan_have_different_rows():
    todo = [(task, e) for task in Fragile.tasks[:3] for e in range(8)]
    assert {len(queue) for queue in by_slot(todo, 8)} == {3}
    assert parse_shard(" 2/3 ") == (2, 3)


@pytest.mark.parametrize("text", ["3/3", "1", "-1/2", "0/0", "a/b", "1/2/3"])
def test_a_shard_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=f"`--shard` must be i/n .* but got '{text}'"):
        parse_shard(text)


@pytest.fixture(scope="module")
def pi05():
    return Pi0Policy(preset="pi05_micro", num_steps=1)


@pytest.fixture(params=["one program", "by row"])
def way(request, monkeypatch):
    """An accelerator's way to answer a batch, and a CPU's."""
    whole = request.param == "one program"
    monkeypatch.setattr(pi0_policy, "batches_in_one_program", lambda: whole)
    return request.param


def calls(count):
    generator = np.random.default_rng(0)
    return [
        PolicyCall(
            observation=RobotObservation(
                images={"base": generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)},
                state=generator.uniform(-1, 1, 8).astype(np.float32),
                instruction=f"move thing {number} away",
            ),
            noise_key=("row", number),
        )
        for number in range(count)
    ]


def test_a_row_of_the_model_does_not_depend_on_the_other_rows(pi05, way):
    assert isinstance(pi05, BatchedPolicy)
    a, b, c = calls(3)
    full = pi05.infer_batch([a, b, c], capture=POOLED)
    part = pi05.infer_batch([None, b, None], capture=POOLED)
    other = pi05.infer_batch([c, b, a], capture=POOLED)
    assert part[0] is None
    for one in (part, other):
        assert one[1].actions.tobytes() == full[1].actions.tobytes()
        for name, value in full[1].latents.items():
            assert one[1].latents[name].tobytes() == value.tobytes(), name


def test_a_batch_is_as_good_as_single_calls(pi05, way):
    batch = pi05.infer_batch(calls(3), capture=POOLED)
    for call, row in zip(calls(3), batch, strict=True):
        alone = pi05.infer(call.observation, capture=POOLED, noise_key=call.noise_key)
        assert np.allclose(row.actions, alone.actions, rtol=1e-5, atol=1e-6)
        if way == "by row":
            assert row.actions.tobytes() == alone.actions.tobytes()
        for name, value in alone.latents.items():
            scale = max(1.0, float(np.abs(value.astype(np.float32)).max()))
            error = np.abs(value.astype(np.float32) - row.latents[name].astype(np.float32)).max()
            assert error <= 2e-6 * scale, name


class OneByOne(RowPolicy):
    """A policy that knows no batches."""

    infer_batch = None


def test_a_policy_without_batches_is_asked_row_by_row(whole, tmp_path):
    policy = OneByOne()
    assert not isinstance(policy, BatchedPolicy)
    collect(tmp_path, plan(), 2, policy=policy)
    assert tars(tmp_path) == tars(whole[0])


def test_a_simulator_that_cannot_be_made_elsewhere_is_said(tmp_path):
    collector = LockStepCollector(
        Fragile(), functools.partial(Fragile, nonsense=1), RowPolicy(), plan(), workers=1
    )
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'nonsense'"):
        collector.run(str(tmp_path), Silent())


def test_a_simulator_that_another_process_cannot_import_is_said(tmp_path, monkeypatch):
    module = types.ModuleType("only_here")
    here = type("Here", (Fragile,), {"__module__": "only_here"})
    module.Here = here
    monkeypatch.setitem(sys.modules, "only_here", module)
    collector = LockStepCollector(Fragile(), here, RowPolicy(), plan(), workers=1)
    with pytest.raises(ValueError, match=r"importable in another process, but: .*only_here"):
        collector.run(str(tmp_path), Silent())


def test_samples_of_real_size_stay_below_four_gigabytes():
    for preset in ("pi0", "pi05"):
        config = Pi0Config.preset(preset, dtype="bfloat16")
        sample = CaptureSpec.preset("tokens").bytes_per_call(config)
        assert samples_in_memory(8) * (sample + 2**18) < 4 * 10**9


def test_rows_write_to_an_address_and_go_on_there(whole, tmp_path):
    address = f"file://{tmp_path}/bucket/data"
    for episodes in (range(2), range(5)):
        LockStepCollector(
            Fragile(), functools.partial(Fragile), RowPolicy(), plan(episodes), workers=2
        ).run(address, Silent(), staging=str(tmp_path / "staging"))
    one, other = contents(address), contents(whole[0])
    assert one[0].equals(other[0])
    assert one[1:] == other[1:]
