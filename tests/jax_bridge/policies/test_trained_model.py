"""What a checkpoint of `ki fit` says of itself."""

import dataclasses
import json

import pytest

from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.pi0 import Pi0, Pi0Config, save_params
from jax_bridge.policies.conventions import Recipe
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.policies.trained_model import read_trained_model

CONFIG = Pi0Config.preset("pi05_micro", action_horizon=7, max_token_len=90, dtype="bfloat16")
RECIPE = Recipe(normalisation="quantile", delta_mask=(True, False), state_in_prompt=True)


def write(folder, **changes):
    (folder / "assets").mkdir(parents=True)
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


def test_a_policy_does_not_look_at_cameras_that_its_training_data_had_not(tmp_path):
    save_params(tmp_path / "params", Pi0(CONFIG).init(0))
    policy = {"tokenizer": "bytes", "convention": "tabletop", "recipe": dataclasses.asdict(RECIPE)}
    write(tmp_path, policy={**policy, "cameras": ["base"]})
    table = Tabletop(image_size=32)
    table.reset(task_id=0, episode=0, seed=0)
    trained, seen = Pi0Policy(checkpoint=str(tmp_path), norm_stats="none"), table.observe()
    assert trained.describe()["cameras"] == ["base"]
    assert list(trained.seen_images(seen)) == ["base"]
    masks = trained.processor.model_inputs(seen).image_masks
    assert {name for name, mask in masks.items() if mask.any()} == {"base_0_rgb"}
    del seen.images["base"]
    with pytest.raises(ValueError, match=r"must be of the cameras base \(.*, but got none"):
        trained.infer(seen)


def test_openpis_own_checkpoints_say_nothing(tmp_path):
    assert read_trained_model(tmp_path) is None


@pytest.mark.parametrize("changes", [{"config": {}}, {"policy": None}, {"policy": {"recipe": 3}}])
def test_a_broken_file_is_named(tmp_path, changes):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"must have a readable assets/model.json, but that of"):
        read_trained_model(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of sizes that are no preset's."""
    folder = tmp_path_factory.mktemp("trained") / "60"
    thin = dataclasses.replace(CONFIG.vlm, depth=1, width=16, mlp_dim=32)
    config = dataclasses.replace(CONFIG, vlm=thin, action=thin)
    save_params(folder / "params", Pi0(config).init(0))
    write(folder, config=config.to_json(), policy={
        "tokenizer": "bytes", "convention": "droid", "recipe": dataclasses.asdict(RECIPE)})  # fmt: skip
    return folder, config


def test_a_policy_takes_sizes_and_preparation_from_its_checkpoint(trained):
    folder, config = trained
    policy = Pi0Policy(checkpoint=str(folder), norm_stats="none")
    assert policy.config == dataclasses.replace(config, dtype="float32")
    assert policy.action_horizon == 7
    assert policy.preset == "custom"
    assert policy.processor.recipe == RECIPE
    assert policy.convention.name == "droid"
    assert policy.describe()["tokenizer"] == {"kind": "bytes"}


def test_what_the_user_says_goes_before_what_the_checkpoint_says(trained):
    folder, _ = trained
    policy = Pi0Policy(
        checkpoint=str(folder), norm_stats="none", convention="libero", action_horizon=3,
        state_in_prompt=False,
    )  # fmt: skip
    assert policy.action_horizon == 3
    assert policy.convention.name == "libero"
    assert not policy.processor.recipe.state_in_prompt
