import json
from pathlib import Path

import numpy as np
import pytest

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import Pi0Config
from jax_bridge.policies.conventions.aloha import ALOHA
from jax_bridge.policies.conventions.libero import LIBERO
from jax_bridge.policies.normalisation import FieldStatistics, NormStats
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import make_tokenizer
from jax_bridge.policies.tokenizers.byte_level import ByteTokenizer

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())
STATS = {key: np.asarray(value) for key, value in FACTS["normalize"]["stats"].items()}
STATE = np.float32([-0.9, -0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0])


def _processor(preset="pi05_micro", *, trained=False, with_stats=False, **changes):
    config = Pi0Config.preset(preset)
    statistics = None
    if with_stats:
        actions = {key: value[:7] for key, value in STATS.items()}
        statistics = NormStats(
            state=FieldStatistics(name="state", **STATS),
            actions=FieldStatistics(name="actions", **actions),
        )
    parts = {
        "config": config,
        "convention": LIBERO,
        "recipe": LIBERO.recipe(pi05=config.pi05, trained=trained),
        "tokenizer": make_tokenizer("bytes"),
        "norm_stats": statistics,
    }
    return Processor(**{**parts, **changes})


def _observation(**changes):
    generator = np.random.default_rng(0)
    parts = {
        "images": {
            "base": generator.integers(0, 256, (64, 48, 3), dtype=np.uint8),
            "left_wrist": generator.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        },
        "state": STATE,
        "instruction": "put the red_cube in the blue bowl",
    }
    return RobotObservation(**{**parts, **changes})


def test_inputs_fit_the_model_and_hold_the_cameras_it_has():
    processor = _processor()
    inputs = processor.model_inputs(_observation())
    inputs.check(processor.config)
    masks = {key: bool(mask[0]) for key, mask in inputs.image_masks.items()}
    assert masks == FACTS["libero_inputs"]["pi05"]["image_mask"]
    assert (inputs.images["right_wrist_0_rgb"] == -1).all()
    assert (inputs.images["base_0_rgb"][0, :, :28] == -1).all()  # a 64 by 48 image is padded left
    assert not (inputs.images["base_0_rgb"][0, :, 28:196] == -1).all()


def test_a_missing_camera_is_black_and_masked_out():
    observation = _observation(images={"base": np.full((8, 8, 3), 255, np.uint8)})
    inputs = _processor().model_inputs(observation)
    assert not inputs.image_masks["left_wrist_0_rgb"][0]
    assert (inputs.images["left_wrist_0_rgb"] == -1).all()
    assert (inputs.images["base_0_rgb"] == 1).all()


def test_state_is_normalised_then_padded_with_zeros():
    inputs = _processor("pi0_micro", trained=True, with_stats=True).model_inputs(_observation())
    expected = (STATE - STATS["mean"]) / (STATS["std"] + 1e-6)
    np.testing.assert_allclose(inputs.state[0, :8], expected, rtol=1e-6)
    assert inputs.state.dtype == np.float32
    assert (inputs.state[0, 8:] == 0).all()


def test_the_prompt_of_random_pi05_holds_the_normalised_state_in_words():
    inputs = _processor().model_inputs(_observation())
    tokenizer = make_tokenizer("bytes")
    ids = inputs.tokenized_prompt[0]
    text = tokenizer.decode(ids[inputs.tokenized_prompt_mask[0]])
    digits = "12 64 128 160 192 224 243 255"
    assert text == f"Task: put the red cube in the blue bowl, State: {digits};\nAction: "
    words = tokenizer.decode(ids[inputs.instruction_mask[0]])
    assert words == "put the red cube in the blue bowl"
    assert tokenizer.decode(ids[inputs.state_text_mask[0]]) == digits


@pytest.mark.parametrize(("preset", "trained"), [("pi05_micro", True), ("pi0_micro", False)])
def test_released_pi05_and_pi0_never_read_the_state_in_words(preset, trained):
    inputs = _processor(preset, trained=trained).model_inputs(_observation())
    text = make_tokenizer("bytes").decode(inputs.tokenized_prompt[0])
    assert text == "put the red cube in the blue bowl\n"
    assert not inputs.state_text_mask.any()


def test_longest_state_digits_and_a_long_instruction_fit_the_prompt_of_pi05():
    longest = "put both the alphabet soup and the cream cheese box in the basket"
    observation = _observation(state=np.full(8, 5.0, np.float32), instruction=longest)
    inputs = _processor().model_inputs(observation)
    assert inputs.state_text_mask.sum() == len(" ".join(["255"] * 8))
    assert not inputs.tokenized_prompt_mask.all()


def test_actions_come_out_in_robot_units_of_the_released_pi0():
    # Normalised, relative to the state on six dimensions, 32 dimensions: openpi's pi0_libero.
    actions = np.random.default_rng(1).standard_normal((10, 32)).astype(np.float32)
    processor = _processor("pi0_micro", trained=True, with_stats=True)
    found = processor.robot_actions(actions, _observation())
    expected = actions[:, :7] * (STATS["std"][:7] + 1e-6) + STATS["mean"][:7]
    expected[:, :6] += STATE[:6]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float32


def test_actions_of_the_released_pi05_are_absolute_quantiles():
    actions = np.random.default_rng(1).standard_normal((10, 32)).astype(np.float32)
    processor = _processor(trained=True, with_stats=True)
    low, high = STATS["q01"][:7], STATS["q99"][:7]
    expected = (actions[:, :7] + 1) / 2 * (high - low + 1e-6) + low
    found = processor.robot_actions(actions, _observation())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_statistics_actions_are_the_models_first_dimensions():
    actions = np.random.default_rng(1).standard_normal((10, 32)).astype(np.float32)
    found = _processor().robot_actions(actions, _observation())
    np.testing.assert_array_equal(found, actions[:, :7])


def test_nothing_is_changed_in_the_observation():
    observation = _observation()
    before = {name: image.copy() for name, image in observation.images.items()}
    processor = _processor("pi0_micro", trained=True, with_stats=True)
    processor.robot_actions(np.zeros((10, 32), np.float32), observation)
    processor.model_inputs(observation)
    for name, image in before.items():
        np.testing.assert_array_equal(observation.images[name], image)
    np.testing.assert_array_equal(observation.state, [np.float32(x) for x in STATE])


def test_seen_images_are_what_the_model_gets():
    processor, observation = _processor(), _observation()
    seen = processor.seen_images(observation)
    inputs = processor.model_inputs(observation)
    assert set(seen) == {"base", "left_wrist"}
    expected = np.float32(seen["base"]) / np.float32(255) * 2 - 1
    np.testing.assert_array_equal(inputs.images["base_0_rgb"][0], expected)


@pytest.mark.parametrize("images", [{}, {"front": np.zeros((2, 2, 3), np.uint8)}])
def test_cameras_that_the_convention_has_not_are_refused(images):
    named = ", ".join(images) or "none"
    with pytest.raises(ValueError, match=rf"base, left_wrist .*libero\), but got {named}"):
        _processor().model_inputs(_observation(images=images))


def test_an_image_of_a_wrong_rank_is_refused_by_camera():
    observation = _observation()
    observation.images["left_wrist"] = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"images\['left_wrist'\].*got shape \(1, 8, 8, 3\)"):
        _processor().model_inputs(observation)


@pytest.mark.parametrize("state", [np.zeros(7, np.float32), np.full(8, np.nan, np.float32)])
def test_a_state_of_wrong_size_or_not_finite_is_refused(state):
    with pytest.raises(ValueError, match=rf"8 finite numbers .*but got shape \({state.size},\)"):
        _processor().model_inputs(_observation(state=state))


def test_a_tokenizer_with_too_many_ids_is_refused():
    class Large(ByteTokenizer):
        def vocabulary_size(self):
            return 257152

    with pytest.raises(ValueError, match=r"at most 2048 ids, .*but got 257152"):
        _processor(tokenizer=Large())


def test_alohas_actions_are_relative_to_the_state_in_the_models_units():
    statistics = NormStats(
        state=_plain("state", 14), actions=_plain("actions", 14)
    )  # normalising with these changes nothing but by the small epsilon
    processor = _processor(
        "pi0_micro", convention=ALOHA, recipe=ALOHA.recipe(pi05=False, trained=True),
        norm_stats=statistics,
    )  # fmt: skip
    state = np.linspace(0.1, 0.9, 14, dtype=np.float32)
    black = np.zeros((8, 8, 3), np.uint8)
    observation = _observation(images={"base": black}, state=state)
    inputs = processor.model_inputs(observation)
    masks = {key: bool(mask[0]) for key, mask in inputs.image_masks.items()}
    assert [key for key, shown in masks.items() if shown] == ["base_0_rgb"]
    decoded = ALOHA.units.state_to_model(state)
    assert inputs.state[0, :14] == pytest.approx(decoded, abs=1e-5)
    moved = processor.robot_actions(np.zeros((10, 32)), observation)
    joints = [i for i in range(14) if i not in (6, 13)]
    # To stand still is to be sent the joints that the robot has now.
    assert moved[:, joints] == pytest.approx(np.tile(state[joints], (10, 1)), abs=1e-5)


def _plain(name, dims):
    return FieldStatistics(name=name, mean=np.zeros(dims), std=np.ones(dims))
