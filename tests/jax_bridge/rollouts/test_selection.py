"""Half-open ranges of the command line."""

import pytest

from jax_bridge.rollouts.selection import parse_range


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0:5", range(5)),
        ("3", range(3, 4)),
        ("2:", range(2, 10)),
        (":4", range(4)),
        (":", range(10)),
    ],
)
def test_a_range_is_half_open(text, numbers):
    assert parse_range(text, name="--tasks", size=10) == numbers


@pytest.mark.parametrize("text", ["0-5", "a", "1:2:3", "-1:3", "1,2"])
def test_what_is_no_range_is_named(text):
    with pytest.raises(ValueError, match=f"`--tasks` must be a half-open range.*{text!r}"):
        parse_range(text, name="--tasks", size=10)


def test_an_unknown_range_says_what_exists():
    with pytest.raises(ValueError, match=r"must lie in 0:10 \(there are 10\), but got '8:12'"):
        parse_range("8:12", name="--tasks", size=10)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="must not be empty, but got '4:4'"):
        parse_range("4:4", name="--episodes", size=None)


def test_without_a_size_the_end_is_needed():
    with pytest.raises(ValueError, match="must name its end here, but got '2:'"):
        parse_range("2:", name="--episodes", size=None)
