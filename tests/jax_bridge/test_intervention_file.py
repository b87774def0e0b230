"""The file of interventions: round trip, and what is no such file."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_bridge.interventions import (
    Intervention,
    Place,
    Replacement,
    load_interventions,
    save_interventions,
)

PLACES = (
    Place(expert="action", site="hidden_states", region="action", pool="mean", layer=3, flow_time=0.1),
    Place(expert="vlm", site="hidden_states", region="text", pool="last", layer=0),
)  # fmt: skip


def interventions(seed=0):
    random = np.random.default_rng(seed)

    def tensor(*shape):
        return random.normal(size=shape).astype(np.float32)

    return [
        Intervention(place=place, u=tensor(5, r), v=tensor(5, r), b=tensor(5))
        for r, place in zip((2, 0), PLACES, strict=True)
    ]


def test_a_file_gives_back_what_was_written(tmp_path):
    given = interventions()
    save_interventions(tmp_path / "out.safetensors", given, {"method": "leace"})
    found = load_interventions(tmp_path / "out.safetensors")
    assert tuple(f.place for f in found.interventions) == PLACES
    assert found.notes == {"method": "leace"}
    for one, two in zip(given, found.interventions, strict=True):
        for word in ("u", "v", "b"):
            np.testing.assert_array_equal(getattr(one, word), getattr(two, word))
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_the_digest_is_of_places_and_numbers_alone(tmp_path):
    for name, notes, seed in (("a", {}, 0), ("b", {"words": 1}, 0), ("c", {}, 1)):
        save_interventions(tmp_path / f"{name}.safetensors", interventions(seed), notes)
    a, b, c = (load_interventions(tmp_path / f"{name}.safetensors").digest for name in "abc")
    assert a == b != c


def test_another_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be a file of interventions, but .*none"):
        load_interventions(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(ValueError, match=r"text.safetensors cannot be read as one"):
        load_interventions(tmp_path / "text.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "version '2'"),
        ({"kind": "magic"}, "kind 'magic' is not known"),
        ({"word": "colour"}, "colour"),
        ({"u": np.zeros((5, 3), np.float32)}, r"are \(5, 3\), \(5, 2\) and \(5,\)"),
        ({"b": np.full(5, np.nan, np.float32)}, "holds NaN"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    given = interventions()[0]
    entry = {"kind": change.get("kind", "affine"), **dataclasses.asdict(given.place)}
    if "word" in change:
        entry[change["word"]] = 1
    tensors = {"0.U": change.get("u", given.u), "0.V": given.v, "0.b": change.get("b", given.b)}
    metadata = {
        "format": "vla-lens-intervention", "version": change.get("version", "1"),
        "interventions": json.dumps([entry]),
    }  # fmt: skip
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        load_interventions(tmp_path / "x.safetensors")


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_a_replacement_comes_back_and_has_a_digest_of_its_own(tmp_path, shape):
    place = Place(expert="vlm", site="hidden_states", region="text", pool="tokens", layer=3)
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    save_interventions(tmp_path / "a.safetensors", [Replacement(place=place, value=value)], {})
    file = load_interventions(tmp_path / "a.safetensors")
    (found,) = file.interventions
    assert isinstance(found, Replacement)
    assert (found.place, found.kind, found.width) == (place, "replace", 6)
    np.testing.assert_array_equal(found.value, value)
    save_interventions(tmp_path / "b.safetensors", [Replacement(place=place, value=value + 1)], {})
    assert load_interventions(tmp_path / "b.safetensors").digest != file.digest


def test_a_replacement_of_one_token_by_many_is_refused(tmp_path):
    place = Place(expert="vlm", site="hidden_states", region="text", pool="last")
    wrong = Replacement(place=place, value=np.zeros((2, 6), np.float32))
    save_interventions(tmp_path / "a.safetensors", [wrong], {})
    with pytest.raises(ValueError, match=r"value of .* is \(2, 6\), which does not fit"):
        load_interventions(tmp_path / "a.safetensors")
