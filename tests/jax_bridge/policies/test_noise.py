import subprocess
import sys

import numpy as np
import pytest

from jax_bridge.policies.noise import call_noise

KEY = ("libero_object", 3, 7, "call", 2)


def test_the_same_call_draws_the_same_noise_in_another_process():
    code = (
        "from jax_bridge.policies.noise import call_noise; "
        f"print(call_noise(5, {KEY!r}, horizon=2, dims=3).tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == call_noise(5, KEY, horizon=2, dims=3).tobytes().hex()


@pytest.mark.parametrize(
    ("seed", "key"),
    [
        (6, KEY),
        (5, ("libero_goal", 3, 7, "call", 2)),
        (5, ("libero_object", 7, 3, "call", 2)),
        (5, ("libero_object", 3, 7, "watch", 2)),
        (5, ("libero_object", 3, 7, "call", -2)),
        (5, ("libero_object", 3, 7, "call", 2 + 2**32)),
        (5, ()),
    ],
)
def test_another_seed_or_call_draws_other_noise(seed, key):
    first = call_noise(5, KEY, horizon=2, dims=3)
    assert not np.array_equal(first, call_noise(seed, key, horizon=2, dims=3))


def test_noise_is_standard_normal():
    noise = call_noise(0, KEY, horizon=1000, dims=32)
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
