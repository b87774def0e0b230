"""Orders are pure functions, splits stay put, nobody reads a row twice."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_bridge.shards import ReadPlan, split_rows


def index_of(episodes):
    """An index of (suite, task_id, episode) with three samples each."""
    rows = [(*episode, step) for episode in episodes for step in range(3)]
    suites, tasks, numbers, steps = zip(*rows, strict=True)
    keys = [f"{row}" for row in rows]
    return pa.table(
        {"key": keys, "suite": suites, "task_id": tasks, "episode": numbers, "timestep": steps}
    )


def names_of(index, rows, columns=("suite", "task_id", "episode")):
    return {tuple(row.values()) for row in index.select(list(columns)).take(rows).to_pylist()}


GRID = list(itertools.product(["a", "b"], range(10), range(20)))


def test_order_is_a_pure_function_of_seed_and_epoch():
    rows = np.arange(0, 1000, 3)
    first, again = ReadPlan(rows, seed=1), ReadPlan(rows.copy(), seed=1)
    np.testing.assert_array_equal(first.order(5), again.order(5))
    assert not np.array_equal(first.order(5), first.order(6))
    assert not np.array_equal(first.order(5), ReadPlan(rows, seed=2).order(5))
    np.testing.assert_array_equal(np.sort(first.order(5)), rows)
    np.testing.assert_array_equal(ReadPlan(rows, shuffle=False).order(5), rows)
    # Written down once: it must never change, or saved positions would mean something else.
    assert ReadPlan(np.arange(8), seed=0).order(0).tolist() == PINNED


PINNED = [6, 0, 7, 3, 4, 2, 1, 5]


LENGTH = 20
"""Samples an episode in the shuffles that are compared."""


def excess(order, distance):
    """How many standard deviations more pairs of one episode stand so far apart than by chance.

    In a random order, each of the n - d pairs is of one episode with probability
    (LENGTH - 1) / (n - 1), nearly independently: their number is close to Poisson's.
    """
    episode = order // LENGTH
    pairs = len(order) - distance
    expected = pairs * (LENGTH - 1) / (len(order) - 1)
    return ((episode[distance:] == episode[:-distance]).sum() - expected) / expected**0.5


def buffered(rows, size, random):
    """What a shuffle buffer of this size makes of a stream, as streaming loaders have one."""
    buffer, order = list(rows[:size]), []
    for row in rows[size:]:
        place = random.integers(size)
        order.append(buffer[place])
        buffer[place] = row
    random.shuffle(buffer)
    return np.asarray(order + buffer)


def shards_shuffled(rows, size, random):
    """Shards in random order, and the samples of each shuffled, but never those of two."""
    shards = rows.reshape(-1, size)[random.permutation(len(rows) // size)]
    return np.concatenate([random.permutation(shard) for shard in shards])


DISTANCES = (1, 2, 3, 5, 10, 30, 100)


@pytest.mark.parametrize(("seed", "epoch"), list(itertools.product(range(3), range(3))))
def test_samples_of_one_episode_are_neighbours_no_more_often_than_by_chance(seed, epoch):
    order = ReadPlan(np.arange(40_000), seed=seed).order(epoch)
    # 63 such numbers are drawn in all; by chance alone one of 30,000 runs has one beyond 5.
    assert max(abs(excess(order, distance)) for distance in DISTANCES) < 5
    # Nor does anything drift: early and late samples are alike in both halves of an epoch.
    halves = np.split(order, 2)
    error = 40_000 / 12**0.5 / len(halves[0]) ** 0.5
    assert abs(halves[0].mean() - halves[1].mean()) < 5 * 2 * error


@pytest.mark.parametrize("shuffle", [buffered, shards_shuffled])
@pytest.mark.parametrize("size", [100, 1000, 5000])
def test_that_measure_finds_poor_shuffles(shuffle, size):
    order = shuffle(np.arange(40_000), size, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(40_000))
    assert max(excess(order, distance) for distance in DISTANCES) > 10


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 60),
    batch_size=st.integers(1, 7),
    world_size=st.integers(1, 4),
    num_workers=st.integers(1, 3),
    start=st.integers(0, 20),
)
def test_each_row_comes_once_over_all_ranks_and_workers(
    n, batch_size, world_size, num_workers, start
):
    plan = ReadPlan(np.arange(n) * 2, seed=4)
    read = [
        rows
        for rank in range(world_size)
        for worker in range(num_workers)
        for rows in plan.batches(
            3,
            batch_size,
            rank=rank,
            world_size=world_size,
            worker=worker,
            num_workers=num_workers,
            start=start,
        )
    ]
    assert all(0 < len(rows) <= batch_size for rows in read)
    found = np.sort(np.concatenate([*read, np.empty(0, np.int64)]))
    np.testing.assert_array_equal(found, np.sort(plan.order(3)[start:]))


@pytest.mark.parametrize("n", [7, 24, 25, 47])
def test_ranks_make_equal_steps_when_the_rest_is_dropped(n):
    plan = ReadPlan(np.arange(n))
    counts = [
        [len(rows) for rows in plan.batches(0, 4, rank=rank, world_size=3, drop_last=True)]
        for rank in range(3)
    ]
    assert counts == [[4] * plan.steps(4, world_size=3, drop_last=True)] * 3
    assert sum(map(sum, counts)) == n // 12 * 12


def test_a_position_can_be_taken_up_by_other_workers():
    plan = ReadPlan(np.arange(100), seed=9)
    whole = [rows for worker in [0] for rows in plan.batches(2, 10)]
    done = np.concatenate(whole[:3])
    rest = [
        rows
        for worker in range(3)
        for rows in plan.batches(2, 7, worker=worker, num_workers=3, start=len(done))
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate([done, *rest])), np.arange(100))


def test_workers_in_turn_give_the_order_of_one_worker():
    plan = ReadPlan(np.arange(50), seed=1)
    single = list(plan.batches(0, 4))
    turns = [iter(plan.batches(0, 4, worker=worker, num_workers=3)) for worker in range(3)]
    for step, rows in enumerate(single):
        np.testing.assert_array_equal(next(turns[step % 3]), rows)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, 5, 30])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_number_of_steps_is_known_beforehand(world_size, start, drop_last):
    plan = ReadPlan(np.arange(31), seed=2)
    share = {"world_size": world_size, "drop_last": drop_last, "start": start}
    for rank in range(world_size):
        read = list(plan.batches(0, 4, rank=rank, **share))
        assert plan.steps(4, rank=rank, **share) == len(read)


def test_a_spare_row_is_another_one_each_epoch_and_attempt():
    plan = ReadPlan(np.arange(100, 1100), seed=0)
    spares = [plan.spare(105, epoch, attempt) for epoch in range(3) for attempt in range(3)]
    assert len(set(spares)) > 6
    assert set(spares) <= set(plan.rows.tolist())
    assert spares[0] == ReadPlan(plan.rows, seed=0).spare(105, 0)


def test_impossible_plans_are_refused():
    plan = ReadPlan(np.arange(5))
    with pytest.raises(ValueError, match=r"`rank` must lie in \[0, 2\), but got 2"):
        plan.batches(0, 4, rank=2, world_size=2)
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        plan.batches(0, 0)
    with pytest.raises(ValueError, match="`rows` must be a vector of row numbers, but got float64"):
        ReadPlan(np.ones(3))


@pytest.mark.parametrize(("by", "size"), [("episode", 3), ("task", 2), ("suite", 1)])
def test_nothing_stands_on_two_sides(by, size):
    index = index_of(GRID)
    splits = split_rows(index, by=by)
    found = np.sort(np.concatenate(list(splits.values())))
    np.testing.assert_array_equal(found, np.arange(index.num_rows))
    columns = ("suite", "task_id", "episode")[:size]
    sides = [names_of(index, rows, columns) for rows in splits.values()]
    assert all(not a & b for a, b in itertools.combinations(sides, 2))


def test_every_task_has_its_share_of_each_side():
    index = index_of(GRID)
    for share, rows in zip((16, 2, 2), split_rows(index, seed=3).values(), strict=True):
        names = names_of(index, rows)
        for task in itertools.product("ab", range(10)):
            assert abs(sum(name[:2] == task for name in names) - share) <= 2
        assert abs(len(names) - 20 * share) <= 12


@pytest.mark.parametrize("by", ["episode", "task", "suite"])
def test_adding_data_never_moves_anything(by):
    small = index_of([e for e in GRID if e[2] % 3 == 0 and e[1] < 7])
    more = index_of([*GRID, *itertools.product("c", range(3), range(40))])
    before, after = (split_rows(index, by=by, seed=5) for index in (small, more))
    for side in before:
        assert names_of(small, before[side]) <= names_of(more, after[side])


def test_another_seed_splits_otherwise_and_fractions_are_kept():
    index = index_of(GRID)
    one, other = (names_of(index, split_rows(index, seed=s)["test"]) for s in (0, 1))
    assert one != other
    splits = split_rows(index, fractions=(0.5, 0.5, 0.0))
    assert len(splits["test"]) == 0
    assert abs(len(splits["train"]) / index.num_rows - 0.5) < 0.05


def test_an_empty_index_splits_into_nothing():
    assert {k: len(v) for k, v in split_rows(index_of(GRID).slice(0, 0)).items()} == {
        "train": 0,
        "val": 0,
        "test": 0,
    }


def test_leaking_splits_need_an_explicit_yes():
    index = index_of(GRID)
    with pytest.raises(ValueError, match="but got 'sample', which puts neighbouring steps"):
        split_rows(index, by="sample")
    splits = split_rows(index, by="sample", allow_leakage=True)
    assert abs(len(splits["train"]) / index.num_rows - 0.8) < 0.05
    with pytest.raises(ValueError, match=r"add up to 1, but got \(0.5, 0.5, 0.5\)"):
        split_rows(index, fractions=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="`by` must be one of episode, task, suite, sample"):
        split_rows(index, by="robot")
