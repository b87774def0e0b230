"""Largest remainders inside bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.recordings.allocation import allocate

AVAILABLE = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2), st.integers(0, 60), max_size=8
)


def test_shares_are_those_of_hamilton():
    """Example of Wikipedia's page on the largest remainder method, 10 seats of 100,000 votes."""
    votes = {"yellow": 47_000, "white": 16_000, "red": 15_900, "green": 12_000, "blue": 6_000,
             "pink": 3_100}  # fmt: skip
    assert allocate(votes, 10) == {
        "yellow": 5,
        "white": 2,
        "red": 1,
        "green": 1,
        "blue": 1,
        "pink": 0,
    }


@given(AVAILABLE, st.integers(0, 200), st.integers(0, 5), st.integers(1, 30) | st.none())
def test_everything_is_given_out_inside_the_bounds(available, total, minimum, maximum):
    if maximum is not None and maximum < minimum:
        maximum = minimum
    least = {s: min(minimum, n, maximum or n) for s, n in available.items()}
    most = {s: n if maximum is None else min(n, maximum) for s, n in available.items()}
    if sum(least.values()) > total:
        with pytest.raises(ValueError, match="`minimum` must leave room"):
            allocate(available, total, minimum=minimum, maximum=maximum)
        return
    given_out = allocate(available, total, minimum=minimum, maximum=maximum)
    assert list(given_out) == list(available)
    assert all(least[s] <= n <= most[s] for s, n in given_out.items())
    assert sum(given_out.values()) == min(total, sum(most.values()))


@given(AVAILABLE, st.integers(1, 200))
def test_without_bounds_nobody_is_a_whole_episode_from_his_share(available, total):
    total = min(total, sum(available.values()))
    whole = max(sum(available.values()), 1)
    for stratum, count in allocate(available, total).items():
        assert abs(count - total * available[stratum] / whole) < 1


def test_a_maximum_below_the_minimum_is_refused():
    with pytest.raises(
        ValueError, match="`maximum` must be at least the minimum 3 and 1, but got 2"
    ):
        allocate({"a": 5}, 3, minimum=3, maximum=2)
