"""A reading can be left in the middle of an epoch and taken up by other workers."""

import itertools
import types

import numpy as np
import pytest

from datamodules import plan_loader
from datamodules.latents import LatentDataModule
from jax_bridge.shards import open_dataset
from tests.datamodules.truth_data import write_truth
from tests.planted import damage_sample, write_planted


def flat(batches) -> list[int]:
    return list(itertools.chain(*(batch.rows.tolist() for batch in batches)))


def begin(data: LatentDataModule, steps: int) -> list[int]:
    """Reads some batches of the first epoch and leaves it there."""
    return flat(itertools.islice(iter(data.train_dataloader()), steps))


@pytest.mark.parametrize("workers", [(0, 0), (0, 2), (2, 0)])
def test_an_epoch_is_gone_on_with_by_other_workers(planted, workers):
    first, second = (
        LatentDataModule(str(planted), batch_size=8, num_workers=number) for number in workers
    )
    whole = flat(LatentDataModule(str(planted), batch_size=8).train_dataloader())
    begun = begin(first, 5)
    state = first.state_dict()
    assert state == {"epoch": 0, "done": 40, "samples": 96, "seed": 0}
    second.load_state_dict(state)
    loader = second.train_dataloader()
    assert begun + flat(loader) == whole
    assert flat(loader) == whole  # the next reading starts at the beginning


def test_batches_that_workers_read_ahead_are_not_done(planted):
    data = LatentDataModule(str(planted), batch_size=4, num_workers=2)
    batches = iter(data.train_dataloader())
    next(batches)
    # Each worker reads two batches ahead.
    assert data.state_dict()["done"] == 4


def test_a_batch_that_is_not_trained_with_to_the_end_is_not_done(planted):
    data = LatentDataModule(str(planted), batch_size=8)
    data._clock = types.SimpleNamespace(
        epoch=lambda: 3, unfinished=lambda: 1, align=lambda epoch, steps: None
    )
    begin(data, 2)
    assert (data.state_dict()["epoch"], data.state_dict()["done"]) == (3, 8)


def test_a_whole_epoch_is_done_and_the_next_one_starts_anew(planted):
    data = LatentDataModule(str(planted), batch_size=36)
    whole = flat(data.train_dataloader())
    state = data.state_dict()
    assert state["done"] == 96
    again = LatentDataModule(str(planted), batch_size=36)
    again.load_state_dict(state)
    again._clock.epoch = lambda: 1
    following = flat(again.train_dataloader())
    assert sorted(following) == sorted(whole)
    assert following != whole


def test_nothing_was_read_nothing_is_saved(planted):
    data = LatentDataModule(str(planted))
    data.train_dataloader()
    assert data.state_dict() == {}


def test_a_position_is_kept_until_training_starts(planted):
    state = {"epoch": 2, "done": 16, "samples": 96, "seed": 0}
    data = LatentDataModule(str(planted), batch_size=8)
    data.load_state_dict(state)
    assert data.state_dict() == state
    data.train_dataloader()
    assert data.state_dict() == state


@pytest.mark.parametrize("changes", [{"seed": 1}, {"task_range": "0:3"}])
def test_a_position_in_the_middle_of_other_samples_is_refused(planted, changes):
    data = LatentDataModule(str(planted), **changes)
    data.load_state_dict({"epoch": 0, "done": 40, "samples": 96, "seed": 0})
    with pytest.raises(ValueError, match=r"saved in, 96 samples of seed 0, but got"):
        data.train_dataloader()


def test_an_epochs_end_can_be_gone_on_with_over_more_data(planted):
    data = LatentDataModule(str(planted), task_range="0:3")
    data.load_state_dict({"epoch": 0, "done": 96, "samples": 96, "seed": 0})
    assert flat(data.train_dataloader()) == []


def test_ranks_without_a_step_are_refused_while_training(planted, monkeypatch):
    monkeypatch.setattr(plan_loader, "rank_and_world_size", lambda: (3, 50))
    data = LatentDataModule(str(planted), batch_size=2)
    with pytest.raises(ValueError, match=r"step for every rank, but got 2.*96 training samples"):
        data.train_dataloader()
    assert len(data.test_dataloader()) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_read_the_rows_of_the_data_as_it_was_opened(tmp_path, workers):
    path = write_planted(tmp_path / "data", tasks=2, episodes=5)
    data = LatentDataModule(str(path), num_workers=workers)
    data.setup()
    before = len(open_dataset(path))
    expected = list(LatentDataModule(str(path)).test_dataloader())
    # "a" sorts before "planted": every row of the new index has another number.
    write_planted(path, tasks=2, episodes=5, suite="a", seed=7)
    assert len(open_dataset(path)) == 2 * before
    found = list(data.test_dataloader())
    assert flat(found) == flat(expected)
    for mine, theirs in zip(found, expected, strict=True):
        for ours, other in zip(mine.features, theirs.features, strict=True):
            np.testing.assert_array_equal(ours.numpy(), other.numpy())


# ------------------------------------------------------------------ damaged samples


@pytest.fixture
def damaged(planted, tmp_path):
    """A copy with two damaged samples a split: the folder, and their rows."""
    path = write_planted(tmp_path / "damaged")
    data = LatentDataModule(str(path))
    data.setup()
    rows = {split: data.rows[split][[1, 7]].tolist() for split in ("train", "val", "test")}
    for row in itertools.chain(*rows.values()):
        damage_sample(path, row)
    return path, rows


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_other_training_samples_in_place_of_damaged_ones(damaged, planted, workers):
    path, rows = damaged
    whole = LatentDataModule(str(planted), batch_size=9)
    data = LatentDataModule(str(path), batch_size=9, num_workers=workers, on_error="skip")
    expected, found = (list(d.train_dataloader()) for d in (whole, data))
    assert [len(batch.rows) for batch in found] == [len(batch.rows) for batch in expected]
    pairs = list(zip(flat(expected), flat(found), strict=True))
    assert sorted(a for a, b in pairs if a != b) == rows["train"]
    spares = {b for a, b in pairs if a != b}
    assert spares <= set(data.rows["train"].tolist()) - set(rows["train"])
    assert sorted(data.damaged["train"]) == rows["train"]
    assert flat(data.train_dataloader()) == flat(found)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_leaves_damaged_samples_out_and_counts_them(damaged, workers, caplog):
    path, rows = damaged
    data = LatentDataModule(str(path), batch_size=1, num_workers=workers, on_error="skip")
    kept = set(flat(data.test_dataloader()))
    assert kept == set(data.rows["test"].tolist()) - set(rows["test"])
    unreadable = data.unreadable("test")
    assert list(unreadable) == data.keys(np.asarray(rows["test"]))
    assert all(key in why for key, why in unreadable.items())
    data.teardown("test")
    assert "2 of 32 samples of split test cannot be read and were left out" in caplog.text


def test_damage_ends_the_reading_where_nothing_else_is_asked(damaged):
    path, _ = damaged
    for workers in (0, 1):
        with pytest.raises(ValueError, match="Shard planted"):
            list(LatentDataModule(str(path), num_workers=workers).test_dataloader())


def test_statistics_over_what_can_be_read_are_not_kept(damaged, cache):
    path, _ = damaged
    data = LatentDataModule(str(path), on_error="skip", batch_size=1)
    assert data.statistics
    # Those of the robot's state and of time, which are not damaged, are kept.
    kept = len(list(cache.rglob("*.safetensors")))
    reading_latents = [s for s in data.sources if s.kind in ("main", "random_projection")]
    assert reading_latents
    assert kept == len(data.sources) - len(reading_latents)


def test_a_target_is_fitted_to_what_can_be_read(planted, tmp_path):
    path = write_planted(tmp_path / "data")
    key = damage_sample(path, 0, member="robot.safetensors")
    data = LatentDataModule(str(path), target="robot_state", on_error="skip", layer=2)
    flat(data.predict_dataloader())
    # And the sample that the control task gives the damaged one's state.
    assert key in data.unreadable("all")
    assert len(data.unreadable("all")) <= 2
    with pytest.raises(ValueError, match=key):
        LatentDataModule(str(path), target="robot_state", layer=2).setup()


TARGETS_OF_TENSORS = ("robot_state", "gripper_opening", "next_action", "action_chunk")


@pytest.fixture(scope="module")
def unknown_and_damaged(tmp_path_factory):
    """Data of which each third sample has no whole chunk of actions, and its damaged sample."""
    path = write_truth(tmp_path_factory.mktemp("unknown") / "data")
    row = int(open_dataset(path).select({"timestep": 0, "task_id": 1})[3])
    return path, damage_sample(path, row, member="robot.safetensors"), row


@pytest.mark.parametrize("target", TARGETS_OF_TENSORS)
def test_a_target_that_cannot_be_read_is_counted_apart_from_one_that_is_not_there(
    unknown_and_damaged, target
):
    path, key, row = unknown_and_damaged
    data = LatentDataModule(str(path), target=target, on_error="skip", batch_size=7)
    assert row not in flat(data.predict_dataloader())
    assert key in data.unreadable("all")
    assert data.without_value == (40 if target == "action_chunk" else 0)
    # Membership of a split does not depend on what is damaged: training reads a spare.
    split = data.splits_of(np.asarray([row]))[0]
    read = flat({"train": data.train_dataloader, "val": data.val_dataloader,
                 "test": data.test_dataloader}[split]())  # fmt: skip
    assert row not in read
    assert key in data.unreadable(split)
    # Mean 0 and deviation 1 over the training rows that can be read.
    values = data.target.values(data.dataset, data.targeted(data.rows["train"]))
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    with pytest.raises(ValueError, match=key):
        LatentDataModule(str(path), target=target).setup()


def test_data_without_any_target_that_can_be_read_is_given_up(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, episodes=5, samples=1)
    for row in range(10):
        damage_sample(path, row, member="robot.safetensors")
    data = LatentDataModule(str(path), target="robot_state", on_error="skip")
    with pytest.raises(ValueError, match=r"known of none of 10, and 10 of them cannot be read"):
        data.setup()


def test_data_that_is_mostly_damaged_is_given_up(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, episodes=5, samples=1)
    data = LatentDataModule(str(path), on_error="skip")
    data.setup()
    for row in data.rows["train"]:
        damage_sample(path, row)
    with pytest.raises(ValueError, match=r"mostly damaged.*of 5 training samples cannot be read"):
        list(data.train_dataloader())
