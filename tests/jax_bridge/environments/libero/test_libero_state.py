import numpy as np
import pytest

from jax_bridge.environments.libero.state import axis_angle, robot_state

# What openpi's code gives, from its pre-processing's reference facts.
GOLDEN = [
    ([0, 0, 0, 1], [0.0, 0.0, 0.0]),
    ([1, 0, 0, 0], [3.141592653589793, 0.0, 0.0]),
    ([0.5, 0.5, 0.5, 0.5], [1.2091995761561454, 1.2091995761561454, 1.2091995761561454]),
    ([0.1, -0.2, 0.3, 1.0001], [0.0, 0.0, 0.0]),
    ([0.70710678, 0, 0, -0.70710678], [4.712388961213552, 0.0, 0.0]),
]


@pytest.mark.parametrize(("quaternion", "expected"), GOLDEN)
def test_axis_angle_is_openpis(quaternion, expected):
    given = np.array(quaternion, np.float64)
    np.testing.assert_allclose(axis_angle(given), expected, rtol=0, atol=1e-12)


def test_axis_angle_leaves_its_argument_alone():
    quaternion = np.array([0.1, -0.2, 0.3, 1.0001])
    axis_angle(quaternion)
    assert quaternion[3] == 1.0001


def test_the_state_is_position_rotation_and_fingers():
    readings = {
        "robot0_eef_pos": np.array([0.1, 0.2, 0.3]),
        "robot0_eef_quat": np.array([1.0, 0.0, 0.0, 0.0]),
        "robot0_gripper_qpos": np.array([0.04, -0.04]),
    }
    expected = np.array([0.1, 0.2, 0.3, np.pi, 0, 0, 0.04, -0.04], np.float32)
    state = robot_state(readings)
    assert state.dtype == np.float32
    np.testing.assert_array_equal(state, expected)
