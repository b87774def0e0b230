"""`--NAME KIND`: a class from a registry, whose arguments become options."""

import importlib

import pytest
from jsonargparse import ArgumentParser

from cli.choice import Choice
from jax_bridge.environments.registry import ENVIRONMENTS
from jax_bridge.policies.registry import POLICIES


class Bike:
    def __init__(self, *, wheels: int = 2) -> None:
        self.wheels = wheels


class Car(Bike):
    def __init__(self, *, doors: int) -> None:
        super().__init__(wheels=4)
        self.doors = doors


@pytest.fixture
def build(monkeypatch):
    """Parses and builds, with `toys` as a module of the user's own."""
    module = type(importlib)("toys")
    vars(module).update(Bike=Bike, Car=Car)
    monkeypatch.setitem(importlib.sys.modules, "toys", module)

    def build(*args):
        choice = Choice("vehicle", registry={"bike": "toys.Bike"}, default="bike", what="toy")
        parser = ArgumentParser()
        parser.add_argument("--config", action="config")
        expanded = choice.expand(args)
        choice.add_to(parser, expanded)
        return choice.build(parser.parse_args(expanded))

    return build


def test_a_short_name_a_class_path_or_nobody_chooses(build, tmp_path):
    assert build().wheels == 2
    assert build("--vehicle", "bike", "--vehicle.wheels", "3").wheels == 3
    assert build("--vehicle=toys.Car", "--vehicle.doors=5").doors == 5
    config = tmp_path / "car.yaml"
    config.write_text("vehicle:\n  name: toys.Car\n  doors: 3\n")
    assert build("--config", str(config)).doors == 3
    assert build(f"--config={config}", "--vehicle.doors", "4").doors == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("boat", r"`--vehicle` must be one of bike or a class path, but got 'boat'"),
        ("toys.Boat", r"must name a class that can be imported, but got 'toys.Boat'"),
        ("no_such.Boat", r"must name a class that can be imported, but got 'no_such.Boat'"),
    ],
)
def test_what_is_no_class_is_named(build, given, message):
    with pytest.raises(ValueError, match=message):
        build("--vehicle", given)


@pytest.mark.parametrize("path", [*ENVIRONMENTS.values(), *POLICIES.values()])
def test_every_registered_class_is_there(path):
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)
