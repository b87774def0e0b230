"""Pictures become numbers; in training they change by a key, and by nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.data.augmentation import AugmentConfig, make_prepare
from jax_bridge.pi0 import Observation

SIDE, ROWS = 20, 3
BASE, WRIST = "base_0_rgb", "left_wrist_0_rgb"
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    random = np.random.default_rng(3)
    pictures = {
        name: random.integers(0, 256, (ROWS, SIDE, SIDE, 3)).astype(np.uint8)
        for name in (BASE, WRIST)
    }
    observation = Observation(
        images=pictures,
        image_masks={name: np.ones(ROWS, bool) for name in pictures},
        state=np.zeros((ROWS, 4), np.float32),
        tokenized_prompt=np.zeros((ROWS, 2), np.int32),
        tokenized_prompt_mask=np.ones((ROWS, 2), bool),
    )
    return TrainingBatch(
        observation=observation, actions=np.zeros((ROWS, 2, 4), np.float32),
        action_mask=np.ones(ROWS, bool), action_is_pad=np.zeros((ROWS, 2), bool),
        action_dims=np.ones(4, bool),
    )  # fmt: skip


def changed(batch, key=0, **settings):
    prepare = make_prepare(AugmentConfig(**settings))
    found = prepare(None if key is None else jax.random.key(key), batch)
    return {name: np.asarray(picture) for name, picture in found.observation.images.items()}


def test_without_a_key_pictures_become_what_the_policy_reads_and_nothing_else(batch):
    from jax_bridge.policies.images import to_model_range

    found = changed(batch, key=None)
    for name, picture in batch.observation.images.items():
        np.testing.assert_allclose(found[name], to_model_range(picture), atol=1e-6)


def test_the_same_key_gives_the_same_pictures_and_another_key_others(batch):
    first, again, other = changed(batch, 1), changed(batch, 1), changed(batch, 2)
    for name in (BASE, WRIST):
        np.testing.assert_array_equal(first[name], again[name])
        assert np.abs(first[name] - other[name]).max() > 0.05
        assert np.abs(first[name][0] - first[name][1]).max() > 0.05, "rows share their draw"


def test_pictures_stay_in_range(batch):
    for picture in changed(batch).values():
        assert picture.min() >= -1
        assert picture.max() <= 1


def test_wrist_cameras_are_not_moved_unless_asked(batch):
    plain = changed(batch, key=None)
    moved = changed(batch, **STILL)
    np.testing.assert_array_equal(moved[WRIST], plain[WRIST])
    assert np.abs(moved[BASE] - plain[BASE]).max() > 0.05
    assert np.abs(changed(batch, move_wrist_cameras=True, **STILL)[WRIST] - plain[WRIST]).max() > 0


def test_zeros_change_nothing(batch):
    plain = changed(batch, key=None)
    for name, picture in changed(batch, crop=0.0, rotation=0.0, **STILL).items():
        np.testing.assert_array_equal(picture, plain[name])


def test_a_crop_shows_a_part_of_the_picture_larger(batch):
    ramp = np.repeat(np.arange(SIDE, dtype=np.float32)[None] / SIDE, SIDE, 0)
    ramps = np.repeat(ramp[None, :, :, None], ROWS, 0).repeat(3, -1)
    observation = dataclasses.replace(batch.observation, images={BASE: ramps, WRIST: ramps})
    found = changed(
        dataclasses.replace(batch, observation=observation), crop=0.2, rotation=0.0, **STILL
    )[BASE]
    slopes = np.diff(found[:, 5, 4:-4, 0], axis=1) * SIDE
    np.testing.assert_allclose(slopes, 0.8, rtol=1e-4)


def test_a_turn_moves_the_corners_and_leaves_the_middle(batch):
    plain = np.zeros((ROWS, SIDE + 1, SIDE + 1, 3), np.float32)
    plain[:, SIDE // 2, SIDE // 2] = 1.0
    observation = dataclasses.replace(batch.observation, images={BASE: plain, WRIST: plain})
    turned = changed(
        dataclasses.replace(batch, observation=observation), crop=0.0, rotation=40.0, **STILL
    )[BASE]
    np.testing.assert_allclose(turned[:, SIDE // 2, SIDE // 2], 1.0, atol=1e-3)
    assert (turned[:, 0, 0] == -1).any(), "behind the corner it is black"


@pytest.mark.parametrize(
    ("name", "value"),
    [("crop", 1.0), ("brightness", -0.1), ("saturation", 2.0), ("rotation", 200.0)],
)
def test_amounts_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must lie in .* but got {value}"):
        AugmentConfig(**{name: value})
