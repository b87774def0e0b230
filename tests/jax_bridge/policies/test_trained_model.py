"""What a checkpoint of `ki fit` says of itself."""

import dataclasses
import json

import pytest

from jax_bridge.pi0 import Pi0Config
from jax_bridge.policies.conventions import Recipe
from jax_bridge.policies.trained_model import read_trained_model

CONFIG = Pi0Config.preset("pi05_micro", action_horizon=7, max_token_len=90, dtype="bfloat16")
RECIPE = Recipe(normalisation="quantile", delta_mask=(True, False), state_in_prompt=True)


def write(folder, **changes):
    (folder / "assets").mkdir()
    entry = {
        "config": CONFIG.to_json(),
        "policy": {"tokenizer": "bytes", "recipe": dataclasses.asdict(RECIPE)},
    }
    (folder / "assets/model.json").write_text(json.dumps({**entry, **changes}))


def test_sizes_and_preparation_come_back_as_they_were_written(tmp_path):
    write(tmp_path)
    found = read_trained_model(tmp_path)
    assert found.config == CONFIG
    assert (found.recipe, found.tokenizer, found.convention) == (RECIPE, "bytes", None)
    assert found.preset == "pi05_micro"
    other = dataclasses.replace(CONFIG, vocab_size=99)
    assert dataclasses.replace(found, config=other).preset == "custom"


def test_openpis_own_checkpoints_say_nothing(tmp_path):
    assert read_trained_model(tmp_path) is None


@pytest.mark.parametrize("changes", [{"config": {}}, {"policy": None}, {"policy": {"recipe": 3}}])
def test_a_broken_file_is_named(tmp_path, changes):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"must have a readable assets/model.json, but that of"):
        read_trained_model(tmp_path)
