"""The grid of a sweep: its points, their names, and the groups that share a stream."""

import itertools

import pytest

from lightning_modules.sweep.plan import examples_of, groups_of, merged, runs_of, together

SHARED = {"trainer": {"max_epochs": 3}, "data": {"path": "a", "layer": 2}}
GRID = {
    "question": [
        {"data.target": "task_id", "data.split_by": "episode"},
        {"data.target": "instruction", "data.split_by": "task"},
    ],
    "data.rollout_step": [None, 0, [0, 5]],
    "data.seed": [0, 1],
}


def test_every_point_of_the_grid_is_one_run_with_its_own_settings_over_the_shared_ones():
    runs = runs_of(SHARED, GRID)
    assert len({run.name for run in runs}) == len(runs) == 2 * 3 * 2
    assert runs[-1].settings == {
        "data.target": "instruction", "data.split_by": "task", "data.rollout_step": [0, 5],
        "data.seed": 1,
    }  # fmt: skip
    assert runs[-1].config == {
        "trainer": {"max_epochs": 3},
        "data": {
            "path": "a", "layer": 2, "target": "instruction", "split_by": "task",
            "rollout_step": [0, 5], "seed": 1,
        },
    }  # fmt: skip
    assert SHARED["data"] == {"path": "a", "layer": 2}


def test_a_run_keeps_its_name_when_the_grid_grows_and_changes_it_with_any_setting():
    names = {run.name for run in runs_of(SHARED, GRID)}
    more = {run.name for run in runs_of(SHARED, {**GRID, "data.seed": [2, 1, 0]})}
    assert names < more
    longer = merged(SHARED, {"trainer": {"max_epochs": 4}})
    assert not names & {run.name for run in runs_of(longer, GRID)}


def test_an_axis_of_the_command_line_replaces_that_of_the_file():
    grid = {**GRID, "data": {"seed": [7]}}
    assert {run.settings["data.seed"] for run in runs_of(SHARED, grid)} == {7}


def test_a_name_is_one_folder_whatever_the_values_are():
    grid = {"data.path": ["s3://bucket/a b", "../..", "x" * 300, "ümläut"]}
    for run in runs_of({}, grid):
        assert "/" not in run.name
        assert not run.name.startswith(".")
        assert len(run.name) < 80


def test_groups_share_a_stream_and_are_cut_no_finer_than_the_workers_need():
    runs = runs_of(SHARED, GRID)
    groups = groups_of(runs, workers=1)
    assert [len(group) for group in groups] == [4, 4, 4]
    for group in groups:
        assert len({run.config["data"]["rollout_step"].__repr__() for run in group}) == 1
    finer = groups_of(runs, workers=5)
    assert sorted(map(len, finer)) == [2, 2, 2, 2, 4]
    assert len(groups_of(runs, workers=100)) == len(runs)
    for cut in (groups, finer):
        assert {r.name for r in itertools.chain(*cut)} == {r.name for r in runs}
        assert all(len({run.stream for run in group}) == 1 for group in cut)
    assert groups_of([], workers=3) == []


ASKED = {
    "data.target": ["task_id", "instruction"],
    "data.seed": [0, 1, 2],
    "model.seed": [0, 1],
}


def test_runs_that_ask_for_the_same_batches_read_together():
    (group,) = groups_of(runs_of(SHARED, ASKED), workers=1)
    parts = together(group, most=10)
    assert [len(part) for part in parts] == [4, 4, 4]
    for part in parts:
        assert {run.settings["data.seed"] for run in part} == {part[0].settings["data.seed"]}
        assert len({run.settings["data.target"] for run in part}) == 2
    assert [len(part) for part in together(group, most=3)] == [3, 1] * 3
    assert [len(part) for part in together(group, most=1)] == [1] * 12


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("data.batch_size", [8, 16]), ("data.fractions", [[0.6, 0.2, 0.2], [0.8, 0.1, 0.1]]),
        ("trainer.max_epochs", [1, 2]), ("data.seed", [0, 1]),
    ],
)  # fmt: skip
def test_runs_that_see_other_batches_do_not(option, values):
    assert [len(part) for part in together(runs_of(SHARED, {option: values}), most=9)] == [1, 1]


def test_runs_with_worker_processes_read_for_themselves():
    own = merged(SHARED, {"data": {"num_workers": 2}})
    runs = runs_of(own, {"model.seed": [0, 1, 2]})
    assert [len(part) for part in together(runs, most=9)] == [1, 1, 1]


def test_groups_are_cut_between_runs_that_do_not_read_together():
    runs = runs_of(SHARED, ASKED)
    assert [len(group) for group in groups_of(runs, workers=2)] == [8, 4]
    for group in groups_of(runs, workers=3):
        assert len(together(group, most=10)) == 1
    assert [len(group) for group in groups_of(runs, workers=4)] == [4, 4, 2, 2]


def test_the_examples_hold_every_setting():
    runs = list(examples_of(SHARED, GRID))
    assert len(runs) == 1 + 1 + 2 + 1
    for axis in ("data.rollout_step", "data.seed"):
        assert all(any(run.settings[axis] == value for run in runs) for value in GRID[axis])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"data.seed": 3}, "a list of settings for each axis, but data.seed has 3"),
        ({}, "must hold at least one axis"),
        ({"data.seed": {}}, "but data.seed has {}"),
        ({"data.seed": []}, r"but data.seed has \[\]"),
        ({"a": [{"data.seed": 0}, {"data.target": "x"}]}, "the same options in all settings"),
        ({"a": [{"data.seed": 0}, 1]}, "the same options in all settings"),
        ({"a": [{}]}, "the same options in all settings"),
        ({"a": [{"data.seed": 0}], "data.seed": [1]}, "data.seed stands in a and data.seed"),
        ({"data.seed": [1, 1]}, "{'data.seed': 1} stands in it 2 times"),
        ({"out": ["x"]}, "such as data.target, but got 'out'"),
        ({"data.": ["x"]}, "such as data.target, but got 'data.'"),
        ({"data.seed": [{1, 2}]}, "numbers, texts, lists and null"),
        ({"data.seed": [float("nan")]}, "numbers, texts, lists and null"),
    ],
)
def test_a_grid_that_is_none_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        runs_of(SHARED, grid)
