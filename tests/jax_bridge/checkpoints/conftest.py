"""Small checkpoints of every format, written by the libraries that users write them with."""

import types

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_bridge.pi0 import Pi0, Pi0Config, save_params


@pytest.fixture(scope="session")
def pi0_params():
    return Pi0(Pi0Config.preset("pi0_micro")).init(0)


@pytest.fixture(scope="session")
def orbax_folder(tmp_path_factory, pi0_params):
    folder = tmp_path_factory.mktemp("orbax")
    save_params(folder / "params", pi0_params)
    return folder


@pytest.fixture
def two_files(tmp_path):
    """The same tensors before and after a training that moved some of them."""
    rng = np.random.default_rng(0)
    before = {
        "model.backbone.text_model.layers.0.w": rng.standard_normal((40, 3)).astype(np.float32),
        "model.backbone.text_model.layers.1.w": rng.standard_normal((40, 3)).astype(np.float32),
        "model.act_head.w": np.ones((4,), np.float32),
        "model.action_token": np.zeros((5,), np.float32),
        "model.only_before": np.ones(2, np.float32),
        "model.cut": np.ones((2, 3), np.float32),
    }
    after = {name.removeprefix("model."): array.copy() for name, array in before.items()}
    del after["only_before"]
    after["backbone.text_model.layers.1.w"] *= np.float32(1.5)
    after["act_head.w"][0] = 3
    after["action_token"][2] = 1
    after["only_after"] = np.ones(2, np.float32)
    after["cut"] = np.ones((3, 2), np.float32)
    save_file(before, tmp_path / "before.safetensors")
    save_file(after, tmp_path / "after.safetensors")
    return types.SimpleNamespace(
        before=tmp_path / "before.safetensors", after=tmp_path / "after.safetensors"
    )
