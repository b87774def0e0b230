"""Messages by the keys of a convention: parts of a state, nested maps, cameras left out."""

import numpy as np
import pytest

from jax_bridge.policies.conventions.aloha import ALOHA
from jax_bridge.policies.conventions.droid import DROID
from jax_bridge.policies.conventions.libero import LIBERO
from jax_bridge.serving.observation_message import read_observation, write_observation

IMAGE = np.zeros((4, 4, 3), np.uint8)


def test_droids_state_is_joined_from_its_parts_and_cut_again():
    message = {
        "observation/exterior_image_1_left": IMAGE,
        "observation/wrist_image_left": IMAGE,
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": np.array([7.0]),
        "prompt": "push",
    }
    seen = read_observation(message, DROID)
    assert seen.state.tolist() == list(range(8))
    again = write_observation(seen, seen.images, DROID)
    assert sorted(again) == sorted(message)
    assert again["observation/joint_position"].tolist() == list(range(7))
    assert again["observation/gripper_position"].tolist() == [7]
    message["observation/gripper_position"] = np.float64(7)  # as some clients send one number
    assert read_observation(message, DROID).state.tolist() == list(range(8))
    del message["observation/gripper_position"]
    with pytest.raises(ValueError, match=r"`observation/gripper_position` must be in every"):
        read_observation(message, DROID)


def test_alohas_images_are_nested_and_its_wrists_may_be_left_out():
    message = {"images": {"cam_high": IMAGE}, "state": np.zeros(14), "prompt": "fold"}
    assert list(read_observation(message, ALOHA).images) == ["base"]
    message["images"]["cam_right_wrist"] = IMAGE
    assert list(read_observation(message, ALOHA).images) == ["base", "right_wrist"]
    del message["images"]["cam_high"]
    with pytest.raises(ValueError, match=r"`images/cam_high` must be in every observation"):
        read_observation(message, ALOHA)


def test_libero_leaves_no_camera_out():
    message = {"observation/image": IMAGE, "observation/state": np.zeros(8), "prompt": "x"}
    with pytest.raises(ValueError, match=r"`observation/wrist_image` must be in every"):
        read_observation(message, LIBERO)
