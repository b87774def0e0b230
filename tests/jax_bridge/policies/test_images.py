import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from jax_bridge.policies.images import (
    model_image,
    parse_image,
    resize_with_pad,
    resize_with_pad_linear,
    to_model_range,
)

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())
RESIZED = np.load(DATA / "openpi_resize_facts.npz")
SEEDS = {"256x256": 434, "480x640": 430, "100x50": 366}
SHAPES = {"256x256": (256, 256, 3), "480x640": (480, 640, 3), "100x50": (100, 50, 3)}


def _noise(seed, shape):
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, shape, dtype=np.uint8)


def _recipe_image(size):
    fact = FACTS["resize_with_pad"][size]
    assert fact["input_recipe"] == (f"PCG64({SEEDS[size]}).integers(0,256,{SHAPES[size]},uint8)")
    return _noise(SEEDS[size], SHAPES[size])


@pytest.mark.parametrize("size", SEEDS)
def test_resize_with_pad_gives_the_very_bytes_of_openpi_client(size):
    fact = FACTS["resize_with_pad"][size]
    resized = resize_with_pad(_recipe_image(size))
    assert hashlib.sha256(resized.tobytes()).hexdigest() == fact["client_pil_sha256"]
    np.testing.assert_array_equal(resized[[0, 112]], RESIZED[f"client_pil_{size}_rows0_112"])


@pytest.mark.parametrize("size", SEEDS)
def test_linear_resize_of_grey_levels_is_within_one_level_of_openpi(size):
    # On a tie the two builds of XLA may round to different sides.
    resized = resize_with_pad_linear(_recipe_image(size))
    golden = RESIZED[f"jax_uint8_{size}_rows0_112"]
    assert np.abs(resized[[0, 112]].astype(int) - golden).max() <= 1
    assert abs(resized.mean() - FACTS["resize_with_pad"][size]["jax_uint8_mean"]) < 1e-3


@pytest.mark.parametrize("size", SEEDS)
def test_linear_resize_of_floats_is_within_1e_6_of_openpi_and_pads_with_minus_one(size):
    resized = resize_with_pad_linear(to_model_range(_recipe_image(size)))
    golden = RESIZED[f"jax_float_{size}_rows0_112"]
    np.testing.assert_allclose(resized[[0, 112]], golden, rtol=0, atol=1e-6)
    fact = FACTS["resize_with_pad"][size]
    assert abs(resized.mean() - fact["jax_float_mean"]) < 1e-6
    inside = (resized > -1).any(axis=-1)
    assert [inside.any(axis=1).sum(), inside.any(axis=0).sum()] == fact["nonpad_rows_cols"]
    assert inside.any(axis=1).argmax() == fact["first_nonpad_row"]
    assert inside.any(axis=0).argmax() == fact["first_nonpad_col"]


def test_linear_resize_treats_leading_axes_as_a_batch():
    images = _noise(0, (2, 50, 40, 3))
    batch = resize_with_pad_linear(images)
    assert np.abs(batch[1].astype(int) - resize_with_pad_linear(images[1])).max() <= 1


def test_an_image_of_the_right_size_is_not_touched():
    image = _noise(1, (224, 224, 3))
    assert resize_with_pad(image) is image
    assert resize_with_pad_linear(image) is image


@pytest.mark.parametrize("shape", [(1, 900, 3), (900, 1, 3), (1, 1, 3), (223, 225, 3)])
def test_any_proportions_fit(shape):
    assert resize_with_pad(_noise(2, shape)).shape == (224, 224, 3)


def test_grey_levels_map_to_openpis_floats():
    levels = np.array([0, 1, 127, 128, 254, 255], np.uint8).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        to_model_range(levels).ravel(), np.float32(FACTS["uint8_to_float"])
    )


def test_float_channels_first_images_are_parsed_as_openpi_parses_them():
    image = np.random.Generator(np.random.PCG64(12)).random((3, 8, 6))
    parsed = parse_image(image, camera="left_wrist")
    assert parsed.shape == (8, 6, 3)
    assert parsed.sum() == FACTS["libero_inputs"]["pi0"]["image_keys"]["left_wrist_0_rgb"][2]
    np.testing.assert_array_equal(parsed[0, :3], FACTS["libero_wrist_float_chw_to_uint8_sample"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_image_as_float_and_as_uint8_is_the_same_to_the_model(dtype):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    as_float = image.astype(dtype) / dtype(255)
    expected = model_image(image, camera="base")
    np.testing.assert_array_equal(model_image(as_float, camera="base"), expected)
    channels_first = as_float.transpose(2, 0, 1)
    np.testing.assert_array_equal(model_image(channels_first, camera="base"), expected)


@pytest.mark.parametrize(
    "shape", [(224, 224), (2, 224, 224, 3), (224, 224, 4), (0, 224, 3), (), (5,)]
)
def test_an_image_of_a_wrong_rank_names_camera_and_shape(shape):
    wanted = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"`images\['base'\]` .*but got shape {wanted}"):
        model_image(np.zeros(shape, np.uint8), camera="base")


def test_a_float_image_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"`images\['base'\]` .*got values in \[-1, 1\]"):
        parse_image(np.linspace(-1, 1, 12).reshape(2, 2, 3), camera="base")
    with pytest.raises(ValueError, match=r"got values in \[nan, nan\]"):
        parse_image(np.full((2, 2, 3), np.nan), camera="base")


def test_an_image_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"must be uint8 or float, but got int64"):
        parse_image(np.zeros((2, 2, 3), np.int64), camera="base")
