"""Exchanging episodes between two sides."""

import numpy as np
import pytest

from lightning_modules.comparison.exchange import plan_exchange
from tests.comparison_sides import side_of
from tests.context_data import correlated


def plan(episodes_a, episodes_b, *, frames=3, tasks=1, **options):
    a = side_of("A", correlated(episodes_a, frames, 2, seed=0), tasks=tasks)
    b = side_of("B", correlated(episodes_b, frames, 2, seed=1), tasks=tasks)
    options = {"paired": False, "permutations": 50} | options
    return plan_exchange(a, b, **options), [*a.tasks, *b.tasks]


def test_episodes_stay_whole_and_sides_keep_their_size():
    found, _ = plan(8, 11)
    for sides in found.permuted:
        for unit in range(found.units):
            assert len(set(sides[found.unit == unit])) == 1
        assert (sides > 0).sum() == 24
    assert (found.permuted != found.observed).any(axis=1).mean() > 0.9
    assert not found.stratified


def test_episodes_are_exchanged_within_their_task():
    found, tasks = plan(12, 9, tasks=3, frames=1)
    assert found.stratified
    codes = np.array([int(name[4:]) for name in tasks])
    for sides in found.permuted:
        for task in range(3):
            assert (sides[codes == task] > 0).sum() == 4
    assert not plan(12, 3, tasks=3)[0].stratified  # one episode of a task on a side


def test_both_sides_of_a_pair_are_exchanged_together():
    found, _ = plan(10, 10, paired=True)
    n = len(found.observed) // 2
    assert (found.permuted[:, :n] == -found.permuted[:, n:]).all()
    assert found.units == 10
    assert 0.3 < (found.permuted[:, :n] > 0).mean() < 0.7


def test_every_episode_is_left_out_once():
    found, _ = plan(30, 26)
    assert len(found.without) == 20
    left = (found.without == 0).sum(axis=0)
    assert (left == 1).all()
    assert all((sides > 0).any() and (sides < 0).any() for sides in found.without)


@pytest.mark.parametrize(("sizes", "paired"), [((3, 4), False), ((6, 6), True)])
def test_too_few_episodes_for_any_test_are_refused(sizes, paired):
    with pytest.raises(ValueError, match=rf"but got {sizes[0]} and {sizes[1]}, which allow"):
        plan(*sizes, paired=paired, frames=50)
