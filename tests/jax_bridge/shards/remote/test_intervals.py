"""Sets of byte ranges, against sets of bytes."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from jax_bridge.shards.remote.intervals import FREE_GAP, WASTE, coalesce, covered, missing, union

pairs = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1]))
range_sets = st.lists(pairs, max_size=8).map(lambda rows: np.array(rows, np.int64).reshape(-1, 2))
far_pairs = st.tuples(st.integers(0, 60_000), st.integers(1, 9000)).map(
    lambda p: (p[0], p[0] + p[1])
)
far_sets = st.lists(far_pairs, max_size=8).map(lambda rows: np.array(rows, np.int64).reshape(-1, 2))


def members(ranges):
    return {byte for start, stop in ranges.tolist() for byte in range(start, stop)}


def is_sorted_and_apart(ranges):
    return (ranges[:, 0] < ranges[:, 1]).all() and (ranges[1:, 0] > ranges[:-1, 1]).all()


@given(range_sets)
def test_a_union_has_the_same_bytes_and_no_two_ranges_touch(some):
    assert members(union(some)) == members(some)
    assert is_sorted_and_apart(union(some))


@given(range_sets, range_sets)
def test_what_is_missing_is_the_difference(need, have):
    found = missing(need, union(have))
    assert members(found) == members(need) - members(have)
    assert is_sorted_and_apart(found)


@given(range_sets, range_sets)
def test_what_is_covered_lies_wholly_inside(need, have):
    inside = covered(need, union(have))
    assert inside.tolist() == [members(row[None]) <= members(have) for row in need]


@settings(max_examples=60)
@given(far_sets, st.integers(1, 20_000))
def test_coalescing_covers_all_cuts_long_ranges_and_wastes_little(some, longest):
    found = coalesce(some, longest)
    assert (found[:, 1] - found[:, 0] <= longest).all()
    assert (found[1:, 0] >= found[:-1, 1]).all()
    assert covered(some, union(found)).all()
    needed = (union(some)[:, 1] - union(some)[:, 0]).sum()
    moved = (found[:, 1] - found[:, 0]).sum()
    assert moved <= needed * (1 + WASTE) + FREE_GAP * len(some)


def test_near_ranges_are_one_and_far_ones_are_not():
    some = np.array([[0, 4096], [4200, 8000], [20_000, 24_096], [24_600, 30_000]])
    assert coalesce(some, 10**6).tolist() == [[0, 8000], [20_000, 24_096], [24_600, 30_000]]
