import numpy as np
import pyarrow as pa
import pytest

from jax_bridge.shards import split_rows
from jax_bridge.shards.splits import NAMES


def index(*, tasks: int = 10, episodes: int = 20, suites: int = 1) -> pa.Table:
    rows = [
        {
            "key": f"{s}-{t}-{e}-{step}", "suite": f"suite{s}", "task_id": t, "episode": e,
        }
        for s in range(suites) for t in range(tasks) for e in range(episodes) for step in range(2)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def episodes_of(table: pa.Table, rows: np.ndarray) -> set[tuple]:
    part = table.take(rows)
    return set(zip(*(part[name].to_pylist() for name in ("task_id", "episode")), strict=True))


@pytest.mark.parametrize("by", ["episode", "task"])
@pytest.mark.parametrize("folds", [3, 4, 5, 10])
def test_every_group_is_tested_in_one_fold_and_validates_the_one_before(by, folds):
    table = index()
    parts = [split_rows(table, by=by, folds=folds, fold=fold) for fold in range(folds)]
    tested = np.sort(np.concatenate([part["test"] for part in parts]))
    np.testing.assert_array_equal(tested, np.arange(table.num_rows))
    for fold, part in enumerate(parts):
        np.testing.assert_array_equal(part["val"], parts[(fold + 1) % folds]["test"])
        whole = np.sort(np.concatenate([part[name] for name in NAMES]))
        np.testing.assert_array_equal(whole, np.arange(table.num_rows))
        columns = ["task_id", "episode"] if by == "episode" else ["task_id"]
        sides = [
            set(map(str, table.take(part[name]).select(columns).to_pylist())) for name in NAMES
        ]
        assert sum(map(len, sides)) == len(set.union(*sides))


def test_five_folds_deal_out_every_task_alike():
    table = index()
    for fold in range(5):
        tested = episodes_of(table, split_rows(table, folds=5, fold=fold)["test"])
        assert np.bincount([task for task, _ in tested]).tolist() == [4] * 10


def test_adding_data_moves_no_episode_to_another_fold():
    small, large = index(tasks=3, episodes=7), index(tasks=5, episodes=40)
    for fold in range(4):
        kept = episodes_of(small, np.arange(small.num_rows))
        before = episodes_of(small, split_rows(small, folds=4, fold=fold)["test"])
        after = episodes_of(large, split_rows(large, folds=4, fold=fold)["test"])
        assert before == after & kept


def test_folds_by_suite_keep_whole_suites_together():
    table = index(tasks=1, episodes=1, suites=40)
    part = split_rows(table, by="suite", folds=4, fold=1)
    sides = [set(table["suite"].take(part[name]).to_pylist()) for name in NAMES]
    assert all(sides)
    assert sum(map(len, sides)) == 40


def test_folds_by_sample_are_refused_too():
    with pytest.raises(ValueError, match=r"but got 'sample', which puts neighbouring steps"):
        split_rows(index(), by="sample", folds=5)


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (5, 5), (5, -1)])
def test_a_fold_that_is_none_is_refused(folds, fold):
    with pytest.raises(ValueError, match=rf"got fold {fold} of {folds}"):
        split_rows(index(), folds=folds, fold=fold)
