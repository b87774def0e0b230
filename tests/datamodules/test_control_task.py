import numpy as np
import pytest

from datamodules.control_task import control_rows, exchanged_episodes
from datamodules.latents import LatentDataModule
from tests.planted import write_planted


def module(path, **options) -> LatentDataModule:
    data = LatentDataModule(str(path), **options)
    data.setup()
    return data


def test_whole_episodes_exchange_their_labels_within_each_side_of_the_split(planted):
    data = module(planted)
    columns = data.reader.columns
    tasks = columns.task_id
    assert (tasks[columns.control] != tasks).mean() > 0.5
    for split in ("train", "val", "test"):
        rows = data.rows[split]
        given = columns.control[rows]
        assert set(given) == set(rows)
        np.testing.assert_array_equal(np.bincount(tasks[given]), np.bincount(tasks[rows]))
    for episode in range(len(data.clusters)):
        rows = np.flatnonzero(columns.cluster == episode)
        given = columns.control[rows]
        assert len(set(columns.cluster[given])) == 1
        np.testing.assert_array_equal(columns.timestep[given], columns.timestep[rows])


def test_the_exchange_follows_the_seed_and_the_names_alone(planted):
    first, again, other = (module(planted, seed=seed).reader.columns for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.control, again.control)
    assert (first.control != other.control).any()


def test_an_episode_on_both_sides_has_one_partner(planted):
    columns = module(planted, split_by="sample", allow_leakage=True).reader.columns
    for episode in range(40):
        given = columns.control[columns.cluster == episode]
        assert len(set(columns.cluster[given])) == 1


def test_a_long_episode_runs_through_a_short_one_from_its_first_step_to_its_last():
    episode_of_row = np.array([0] * 6 + [1] * 3)
    names = ["a", "b"]
    seed = next(s for s in range(9) if exchanged_episodes(names, np.zeros(2, int), seed=s)[0] == 1)
    rows = control_rows(episode_of_row, names, {"train": np.arange(9)}, seed=seed)
    assert rows.tolist() == [6, 6, 7, 7, 8, 8, 0, 2, 4]


def test_rows_that_are_not_selected_stay_as_they_are(planted):
    data = module(planted, episode_range="0:6")
    rest = np.setdiff1d(np.arange(160), data.rows["all"])
    np.testing.assert_array_equal(data.reader.columns.control[rest], rest)


def test_sources_are_the_fields_the_robot_and_the_clock(planted):
    data = module(planted, fields=["vlm.hidden_states.text.mean", "action.velocity.action.tokens"])
    kinds = [(source.kind, len(source.cells), source.width) for source in data.sources]
    assert kinds == [
        ("main", 3, 12), ("main", 3, 8), ("proprioception", 1, 5), ("time", 1, 11),
    ]  # fmt: skip
    batch = next(iter(data.test_dataloader()))
    assert [tuple(x.shape[1:]) for x in batch.features] == [(3, 12), (3, 8), (1, 5), (1, 11)]
    state = data.dataset.read_robot("state", rows=batch.rows.numpy())
    np.testing.assert_array_equal(batch.features[2][:, 0], state)


def test_control_data_are_joined_by_key(planted, tmp_path):
    other = write_planted(tmp_path / "untrained", episodes=12, seed=5)
    data = module(planted, control_data=str(other))
    batch = next(iter(data.test_dataloader()))
    control = module(other)
    place = {key: i for i, key in enumerate(control.keys(control.rows["all"]))}
    rows = np.array([place[key] for key in data.keys(batch.rows.numpy())])
    expected = control.dataset.read("vlm.hidden_states.text.mean", rows=rows)
    np.testing.assert_array_equal(batch.features[1], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": ["vlm.hidden_states"]}, r"four words.*but got 'vlm.hidden_states'"),
        ({"fields": []}, r"each field once, but got \[\]"),
        (
            {"fields": ["vlm.hidden_states.text.last"]},
            r"a captured field, but got vlm.hid.*text.last",
        ),
        ({"control_data": "SMALL"}, r"lacks 80 of 160, planted-t002-e0000-s0000 for one"),
        ({"control_data": "/nowhere"}, r"/nowhere has no dataset.json"),
    ],
)
def test_sources_that_cannot_be_read_say_why(planted, tmp_path, options, message):
    if options.get("control_data") == "SMALL":
        options = {"control_data": str(write_planted(tmp_path / "small", tasks=2))}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        module(planted, **options)
