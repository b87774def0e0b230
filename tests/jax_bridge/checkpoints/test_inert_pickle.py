"""No pickle is ever run: neither a hostile one nor a damaged one."""

import pickle
import random

import numpy as np
import pytest
import torch

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.checkpoints.inert_pickle import InertCall, InertName, read_inert


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_checkpoint_is_refused_by_name_and_nothing_of_it_runs(tmp_path):
    victim = tmp_path / "victim"
    torch.save({"state_dict": {"w": torch.ones(2)}, "evil": Hostile(victim)}, tmp_path / "h.pt")
    with pytest.raises(ValueError, match=r"tensors alone, .* names _?io.open.* give --trust"):
        open_checkpoint(tmp_path / "h.pt")
    found = open_checkpoint(tmp_path / "h.pt", trust=True)
    assert [name.rpartition(".")[2] for name in found.unsafe] == ["open"]
    assert found.read("state_dict.w").tolist() == [1, 1]
    assert not victim.exists()
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "h.pt", weights_only=True)


def test_numpy_scalars_are_named_as_torch_names_them(tmp_path):
    torch.save({"w": torch.ones(1), "loss": np.float64(1)}, tmp_path / "n.pt")
    assert any("numpy" in name for name in open_checkpoint(tmp_path / "n.pt", trust=True).unsafe)
    with pytest.raises(ValueError, match=r"names numpy\."):
        open_checkpoint(tmp_path / "n.pt")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_come_back_as_they_are(protocol):
    value = {"a": [1, 2.5, None, True], "b": ("x", (), (1, 2, 3, 4)), "c": {"d": -(2**70)}, 3: {}}
    assert read_inert(pickle.dumps(value, protocol))[0] == value


def test_calls_stay_descriptions():
    found, names = read_inert(pickle.dumps(Hostile("x"), 4))
    assert isinstance(found, InertCall)
    assert isinstance(found.function, InertName)
    assert found.arguments == ("x", "w")
    assert len(names) == 1


def test_damaged_pickles_are_refused_whatever_the_damage():
    whole = pickle.dumps({"a": [1, (2, "three")], "b": {"c": 4.0}}, 2)
    rng = random.Random(0)
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            read_inert(bytes(content[: rng.randrange(1, len(content) + 1)]))
        except ValueError as error:
            assert "its pickle cannot be read" in str(error)  # noqa: PT017 - some are still whole


def test_a_bomb_of_nested_doubles_costs_no_more_than_its_length():
    levels = 200
    bomb = b"\x80\x02]" + b"2\x86" * levels + b"."  # (x, x), and a pair of that, ...
    read_inert(bomb)
    keyed = b"\x80\x02}]" + b"2\x86" * levels + b"K\x01s."  # such a thing as a dict's key
    assert list(read_inert(keyed)[0]) == ["tuple 0"]
