"""Simulators are chosen by name or by class path."""

import pytest

from jax_bridge.environments.registry import ENVIRONMENTS, class_path


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_known_names_stand_for_their_class(name):
    assert class_path(name) == ENVIRONMENTS[name]


def test_a_class_path_stands_for_itself():
    assert class_path("my_lab.simulators.Kitchen") == "my_lab.simulators.Kitchen"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of libero, tabletop .* but got 'kitchen'"):
        class_path("kitchen")
