"""Converted folders are openpi's: a policy reads weights and statistics from them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_bridge.pi0 import Pi0, Pi0Config, load_params, params_digest
from jax_bridge.policies import converted_checkpoint as module
from jax_bridge.policies.checkpoint_folder import checkpoint_folder, find_norm_stats, find_preset
from jax_bridge.policies.converted_checkpoint import convert_checkpoint
from jax_bridge.policies.normalisation import load_norm_stats
from tests.jax_bridge.pi0.test_from_torch import as_torch

CONFIG = Pi0Config.preset("pi05_micro")
ROWS = {"mean": [0.0, 1.0], "std": [1.0, 2.0], "q01": [-1.0, -2.0], "q99": [1.0, 2.0]}


@pytest.fixture(scope="module")
def params():
    return Pi0(CONFIG).init(0)


@pytest.fixture
def weights(tmp_path, params):
    folder = tmp_path / "torch"
    folder.mkdir()
    tensors = {f"model.{name}": array for name, array in as_torch(params, CONFIG).items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_policy_reads_what_was_converted(weights, tmp_path, params):
    done = convert_checkpoint(weights, tmp_path / "out")
    assert done.statistics == []
    folder = checkpoint_folder(str(tmp_path / "out"))
    assert find_preset(folder) == "pi05_micro"
    assert params_digest(load_params(folder)) == params_digest(params)
    with pytest.raises(ValueError, match=r"`out` must be empty or new, but got .*out"):
        convert_checkpoint(weights, tmp_path / "out")


def test_openpis_statistics_come_along(weights, tmp_path, monkeypatch):
    _without_weights(monkeypatch)
    file = weights / "assets" / "physical-intelligence" / "libero" / "norm_stats.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"norm_stats": {"state": ROWS, "actions": ROWS}}))
    done = convert_checkpoint(weights, tmp_path / "out")
    assert done.statistics == ["assets/physical-intelligence/libero/norm_stats.json"]
    found = find_norm_stats(tmp_path / "out", "physical-intelligence/libero")
    assert load_norm_stats(found).state.mean.tolist() == ROWS["mean"]


@pytest.mark.parametrize("kept", ["beside", "inside", "untrained"])
def test_lerobots_statistics_become_openpis(weights, tmp_path, monkeypatch, kept):
    _without_weights(monkeypatch)
    rows = {key: np.float32(row) for key, row in ROWS.items()}
    if kept == "beside":
        tensors = {f"observation.state.{k}": r for k, r in rows.items()}
        tensors |= {f"action.{k}": r for k, r in rows.items()}
        save_file(tensors, weights / "policy_preprocessor_step_5_normalizer_processor.safetensors")
    else:
        tensors = {
            f"{name}.{key}": np.full(2, np.inf, np.float32) if kept == "untrained" else rows[key]
            for name in (
                "normalize_inputs.buffer_observation_state", "unnormalize_outputs.buffer_action"
            )
            for key in ("mean", "std")
        }  # fmt: skip
        save_file(tensors, weights / "model.safetensors")
    done = convert_checkpoint(weights, tmp_path / "out")
    if kept == "untrained":
        assert done.statistics == []
        return
    found = load_norm_stats(find_norm_stats(tmp_path / "out", "physical-intelligence/libero"))
    assert found.actions.std.tolist() == ROWS["std"]
    assert (found.state.q01 is None) == (kept == "inside")


def _without_weights(monkeypatch):
    """These tests are about statistics; the weights have theirs above."""
    done = module.Converted(params={}, config=CONFIG, used=0, left_out=[])
    monkeypatch.setattr(module, "convert", lambda checkpoint, **given: done)
    monkeypatch.setattr(module, "save_params", lambda path, params: None)
