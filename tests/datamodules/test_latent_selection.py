import pytest

from datamodules.latents import LatentDataModule
from datamodules.row_choice import parse_half_open
from tests.planted import FLOW_TIMES, LAYERS, WIDTH, write_planted


def module(path, **options) -> LatentDataModule:
    data = LatentDataModule(str(path), **options)
    data.setup()
    return data


def test_every_captured_layer_is_a_cell_by_default(planted):
    data = module(planted)
    assert [cell.layer for cell in data.cells] == list(LAYERS)
    assert [field.width for field in data.fields] == [WIDTH]


def test_layers_and_flow_times_span_a_grid_with_the_layer_first(planted):
    data = module(planted, expert="action", layer=[5, 0], flow_time=[0.8, 0.1])
    places = [(cell.layer, cell.flow_time) for cell in data.cells]
    assert places == [(5, FLOW_TIMES[1]), (5, 0.1), (0, FLOW_TIMES[1]), (0, 0.1)]


def test_text_only_means_the_text_region_of_the_vlm(planted):
    assert module(planted, expert="text_only").cells == module(planted).cells


def test_axes_behind_layer_and_flow_time_are_flattened(planted):
    data = module(planted, expert="action", site="velocity", pool="tokens")
    assert (len(data.cells), data.fields[0].width) == (3, 8)


def test_rows_without_a_valid_token_are_dropped_and_counted(planted):
    data = module(planted, region="image_left_wrist")
    assert data.dropped == 40
    assert data.describe()["dropped_without_valid_token"] == 40
    assert len(data.rows["all"]) == 120


def test_task_episode_and_step_ranges_select(planted):
    data = module(planted, task_range="1:3", episode_range=[0, 8], rollout_step=[0, 10])
    index = data.dataset.index.take(data.rows["all"])
    assert set(index["task_id"].to_pylist()) == {1, 2}
    assert set(index["episode"].to_pylist()) == set(range(8))
    assert set(index["timestep"].to_pylist()) == {0, 10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_range": "2:6"}, r"got 2:6, and there is no task 4-5.*holds tasks 0-3"),
        ({"task_range": "two"}, r"half-open range such as 0:5.*'two'"),
        ({"episode_range": "50:60"}, r"50-59 selects none.*episodes 0-9"),
        ({"rollout_step": [10, 11]}, r"11 selects none.*timesteps 0, 5, 10, 15"),
        ({"layer": [2, 2]}, r"`layer` must name each place once, but got \[2, 2\]"),
        ({"expert": "action", "flow_time": [0.8, 0.8004]}, r"once, but got \[0.8, 0.8004\]"),
        ({"rollout_step": 3}, r"3 selects none.*timesteps 0, 5, 10, 15"),
        ({"suite": "libero"}, r"`suite` must be one of planted, but got 'libero'"),
        ({"layer": 7}, r"got 7.*holds layers 0, 2, 5"),
        ({"layer": []}, r"got \[\].*holds layers 0, 2, 5"),
        ({"expert": "action", "flow_time": 0.5}, r"got 0.5.*flow times 1.00, 0.80, 0.10"),
        ({"flow_time": 0.1}, r"left out for vlm.hidden_states.text.mean.*got 0.1"),
        ({"expert": "action", "site": "velocity", "pool": "tokens", "layer": 2}, "has no layers"),
        ({"pool": "last"}, r"got vlm.hidden_states.text.last.*holds vlm.hidden_states.text.mean"),
        ({"expert": "motor"}, r"`expert` must be one of vlm, action, but got 'motor'"),
        ({"expert": "text_only", "region": "image_base"}, r"left out.*'image_base'"),
        ({"region": "image_right_wrist"}, r"image_right_wrist has none in any of the 160"),
        ({"split_by": "task"}, r"`split_by` must be episode with target task_id"),
        ({"split_by": "sample", "target": "instruction"}, r"allow_leakage"),
        ({"fractions": (1.0, 0.0, 0.0)}, r"val, test got none of 160 samples"),
        ({"task_range": "0:1"}, r"at least 2 .* classes, but got 1: '000 put_the_red"),
        ({"target": "colour"}, r"one of task_id, instruction, .*column:NAME.* but got 'colour'"),
        ({"batch_size": 0}, r"`batch_size` must be positive"),
        ({"fold": 2}, r"`folds` must say of how many `fold` 2 is one"),
        ({"folds": 2}, r"at least 3 folds, but got fold 0 of 2"),
        ({"folds": 5, "fold": 5}, r"`fold` must lie in 0 to .* but got fold 5 of 5"),
        (
            {"episode_range": "0:1", "task_range": "0:2"},
            r"(train|val|test).* got none of 8 samples with .* by episode",
        ),
        ({"target": "column:sucess"}, r"got 'sucess'. Did you mean success"),
        ({"target": "column:zzz"}, r"got 'zzz'. There are suite, task_id"),
        ({"target": "column:"}, r"`target` must be one of"),
        ({"target": "object"}, r"`target` object needs a goal .* none of 160 samples"),
        ({"target": "relations"}, r"needs predicates in the recorded truth"),
        ({"target": "next_action"}, r"needs the robot's executed, but none of 160"),
        ({"target": "gripper_opening"}, r"states of 8 numbers .* but got 5"),
        ({"target": "success"}, r"success needs at least 2 .* classes, but got 1: 'yes'"),
        ({"target": "suite"}, r"suite needs at least 2 .* classes, but got 1: 'planted'"),
        ({"target": "column:task_id", "task_range": "1:2"}, r"got the same in all 24 training"),
    ],
)  # fmt: skip
def test_a_selection_that_cannot_be_met_says_what_there_is(planted, options, message):
    with pytest.raises(ValueError, match=message):
        module(planted, **options)


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        module(tmp_path)


def test_a_range_reads_as_half_open():
    assert parse_half_open("2:5", name="x") == range(2, 5)
    assert parse_half_open([2, 5], name="x") == range(2, 5)
    assert parse_half_open("3", name="x") == range(3, 4)


def test_no_episode_stands_on_two_sides_of_a_split(planted):
    data = module(planted)
    sides = [set(data.reader.columns.cluster[data.rows[s]]) for s in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40


def test_adding_data_moves_no_episode_between_splits(planted, tmp_path):
    small = module(write_planted(tmp_path / "small", episodes=6))
    large = module(planted)
    for split in ("train", "val", "test"):
        keys = set(small.keys(small.rows[split]))
        assert keys <= set(large.keys(large.rows[split]))
        assert keys
