import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import CaptureSpec, Pi0, save_params
from jax_bridge.policies.noise import call_noise
from jax_bridge.policies.normalisation import load_norm_stats
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.policies.policy import Policy

POOLED = CaptureSpec.preset("pooled")
KEY = ("tabletop", 0, 1, "call", 2)


def _observation(instruction="put the red cube in the blue bowl", dtype=np.uint8):
    generator = np.random.default_rng(3)
    images = {
        name: generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        for name in ("base", "left_wrist")
    }
    observation = RobotObservation(
        images=images, state=np.linspace(-1, 1, 8, dtype=np.float32), instruction=instruction
    )
    if dtype != np.uint8:
        for name, image in images.items():
            observation.images[name] = image.astype(dtype) / dtype(255)
    return observation


@pytest.fixture(scope="module", params=["pi05_micro", "pi0_micro"])
def policy(request):
    return Pi0Policy(preset=request.param)


@pytest.fixture(scope="module")
def pi05():
    return Pi0Policy(preset="pi05_micro")


def test_latents_are_exactly_the_fields_announced(policy):
    output = policy.infer(_observation(), capture=POOLED, noise_key=KEY)
    fields = policy.fields(POOLED)
    assert set(output.latents) == set(fields)
    for name, value in output.latents.items():
        assert isinstance(value, np.ndarray), name
        assert (value.shape, value.dtype) == (fields[name].shape, fields[name].numpy_dtype), name
    assert output.latents["valid.instruction"]
    assert not output.latents["valid.image_right_wrist"]


def test_weights_that_several_devices_share_give_the_same_actions(tmp_path, pi05):
    save_params(tmp_path / "params", pi05.params)
    script = Path(__file__).with_name("on_four_devices.py")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "equal\n", done.stderr


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"`devices` must be at most 1, .* but got 2"):
        assert Pi0Policy(preset="pi05_micro", devices=2).params
    with pytest.raises(ValueError, match=r"`devices` must be at least 1, but got 0"):
        Pi0Policy(preset="pi05_micro", devices=0)


def test_actions_have_the_robots_shape(policy):
    plain = policy.infer(_observation(), noise_key=KEY)
    assert plain.actions.shape == (policy.action_horizon, 7)
    assert plain.actions.dtype == np.float32
    assert np.isfinite(plain.actions).all()
    assert plain.latents == {}


@pytest.mark.parametrize("preset", ["pooled", "tokens"])
def test_actions_do_not_depend_on_the_capture(policy, preset):
    plain = policy.infer(_observation(), noise_key=KEY)
    capture = CaptureSpec.preset(preset)
    captured = policy.infer(_observation(), capture=capture, noise_key=KEY)
    np.testing.assert_array_equal(captured.actions, plain.actions)


def test_the_same_call_gives_the_same_bytes_in_a_fresh_policy(pi05):
    fresh = Pi0Policy(preset="pi05_micro")
    first = pi05.infer(_observation(), capture=POOLED, noise_key=KEY)
    second = fresh.infer(_observation(), capture=POOLED, noise_key=KEY)
    np.testing.assert_array_equal(first.actions, second.actions)
    for name, value in first.latents.items():
        np.testing.assert_array_equal(second.latents[name], value)
    assert fresh.describe() == pi05.describe()


def test_noise_words_and_state_and_seed_matter(pi05):
    first = pi05.infer(_observation(), noise_key=KEY).actions
    other_state = RobotObservation(
        images=_observation().images,
        state=np.zeros(8, np.float32),
        instruction=_observation().instruction,
    )
    others = [
        pi05.infer(_observation(), noise_key=("tabletop", 0, 1, "call", 3)),
        pi05.infer(_observation("put the red cube in the green bowl"), noise_key=KEY),
        pi05.infer(other_state, noise_key=KEY),
        Pi0Policy(preset="pi05_micro", seed=1).infer(_observation(), noise_key=KEY),
    ]
    for other in others:
        assert not np.array_equal(first, other.actions)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_give_the_actions_of_uint8_images(pi05, dtype):
    first = pi05.infer(_observation(), noise_key=KEY).actions
    second = pi05.infer(_observation(dtype=dtype), noise_key=KEY).actions
    np.testing.assert_array_equal(first, second)


def test_state_tokens_are_told_from_instruction_tokens(pi05):
    spec = CaptureSpec(names=("vlm.hidden_states.text.tokens",), layers=(0,), flow_times=(1.0,))
    latents = pi05.infer(_observation(), capture=spec).latents
    ids = pi05.processor.model_inputs(_observation()).tokenized_prompt[0]
    tokenizer = pi05.processor.tokenizer
    words = tokenizer.decode(ids[latents["mask.instruction"]])
    assert words == "put the red cube in the blue bowl"
    assert tokenizer.decode(ids[latents["mask.state_text"]]) == "0 36 73 109 146 182 219 255"


def test_construction_estimates_and_fields_load_no_weights():
    start = time.perf_counter()
    policy = Pi0Policy(preset="pi05", dtype="bfloat16")  # 3.3 billion parameters if drawn
    assert sum(field.nbytes for field in policy.fields(POOLED).values()) > 1e6
    assert policy.action_horizon == 50
    assert isinstance(policy, Policy)
    assert "params" not in vars(policy)
    assert time.perf_counter() - start < 5


def test_describe_is_json_and_tells_weights_by_their_digest(pi05):
    entry = pi05.describe()
    assert json.loads(json.dumps(entry)) == entry
    assert entry["preset"] == "pi05_micro"
    assert entry["tokenizer"] == {"kind": "bytes"}
    assert entry["recipe"]["state_in_prompt"]
    assert (
        Pi0Policy(preset="pi05_micro", seed=1).describe()["params_digest"]
        != (entry["params_digest"])
    )


def test_the_golden_checkpoint_acts_in_robot_units(shared, tmp_path):
    source = shared / "golden" / "checkpoints" / "pi0_micro_value"
    policy = Pi0Policy(checkpoint=str(source))
    assert policy.preset == "pi0_micro"
    observation = _observation()
    found = policy.infer(observation, noise_key=KEY).actions
    inputs = policy.processor.model_inputs(observation)
    noise = call_noise(0, KEY, horizon=10, dims=32)[None]
    raw = np.asarray(Pi0(policy.config).sample_actions(policy.params, inputs, noise=noise))[0]
    stats = load_norm_stats(str(source / "assets/physical-intelligence/libero/norm_stats.json"))
    expected = raw[:, :7] * (stats.actions.std + 1e-6) + stats.actions.mean
    expected[:, :6] += observation.state[:6]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    elsewhere = tmp_path / "copy"
    shutil.copytree(source, elsewhere, copy_function=shutil.copyfile)
    moved = Pi0Policy(checkpoint=str(elsewhere)).describe()
    assert moved == {**policy.describe(), "checkpoint": str(elsewhere)}


@pytest.fixture(scope="module")
def saved_pi05(tmp_path_factory, pi05):
    folder = tmp_path_factory.mktemp("checkpoint") / "1000"
    folder.mkdir()
    save_params(folder / "params", pi05.params)
    return folder


def test_a_saved_checkpoint_is_read_by_its_convention(saved_pi05, pi05):
    policy = Pi0Policy(checkpoint=str(saved_pi05), norm_stats="none")
    assert policy.preset == "pi05_micro"
    assert policy.describe()["params_digest"] == pi05.describe()["params_digest"]
    assert not policy.processor.recipe.state_in_prompt
    same = Pi0Policy(checkpoint=str(saved_pi05), norm_stats="none", state_in_prompt=True)
    np.testing.assert_array_equal(
        same.infer(_observation(), noise_key=KEY).actions,
        pi05.infer(_observation(), noise_key=KEY).actions,
    )


def test_a_checkpoint_of_another_preset_is_refused_by_parameter(saved_pi05):
    policy = Pi0Policy(checkpoint=str(saved_pi05), preset="pi0_micro", norm_stats="none")
    with pytest.raises(ValueError, match=r"action_time_mlp_in/bias is missing"):
        policy.infer(_observation())


def test_a_checkpoint_without_statistics_is_refused(saved_pi05):
    with pytest.raises(FileNotFoundError, match=r"assets/\*\*/norm_stats\.json.*--policy"):
        Pi0Policy(checkpoint=str(saved_pi05)).infer(_observation())


def test_released_checkpoints_take_the_conventions_horizon(monkeypatch):
    monkeypatch.setattr("jax_bridge.policies.pi0_policy.find_preset", lambda folder: "pi05")
    monkeypatch.setattr("jax_bridge.policies.pi0_policy.checkpoint_folder", Path)
    assert Pi0Policy(checkpoint="x").action_horizon == 10
    assert Pi0Policy(checkpoint="x", action_horizon=16).action_horizon == 16
    assert Pi0Policy(checkpoint="x", preset="pi0").action_horizon == 50
    assert Pi0Policy(preset="pi05").action_horizon == 50


def test_bfloat16_weights_act_and_are_stored_as_bfloat16():
    policy = Pi0Policy(preset="pi05_micro", dtype="bfloat16")
    output = policy.infer(_observation(), capture=POOLED, noise_key=KEY)
    assert output.actions.dtype == np.float32
    field = policy.fields(POOLED)["vlm.hidden_states.instruction.mean"]
    assert field.dtype == "bfloat16"
    assert output.latents[field.name].dtype == field.numpy_dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"`preset` or `checkpoint` must be given, but got neither"),
        ({"preset": "pi06"}, r"must be one of pi0, .*but got 'pi06'"),
        ({"preset": "pi0", "dtype": "float16"}, r"`dtype` must be one of .*'float16'"),
        ({"preset": "pi0", "convention": "libreo"}, r"`convention` must be .*'libreo'"),
        ({"preset": "pi0", "num_steps": 0}, r"`num_steps` must be at least 1, but got 0"),
        ({"preset": "pi0", "seed": -1}, r"`seed` must be at least 0, but got -1"),
    ],
)
def test_a_wrong_word_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pi0Policy(**arguments)


def test_a_wrong_checkpoint_folder_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`checkpoint` must be a folder with .*params/"):
        Pi0Policy(checkpoint=str(tmp_path)).infer(_observation())


def test_state_words_are_refused_for_pi0():
    policy = Pi0Policy(preset="pi0_micro", state_in_prompt=True)
    with pytest.raises(ValueError, match=r"`state_in_prompt` must be false for π0"):
        policy.infer(_observation())


def test_fewer_robot_dimensions_cut_the_actions():
    policy = Pi0Policy(preset="pi05_micro", robot_action_dim=6)
    assert policy.infer(_observation()).actions.shape == (10, 6)
