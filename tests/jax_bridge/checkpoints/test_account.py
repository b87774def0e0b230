"""What a checkpoint holds is counted by part, and shown as a tree."""

import json

import pytest
import torch
from safetensors.torch import save_file

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.checkpoints.account import account, describe, kinds
from jax_bridge.checkpoints.parts import find_family, part_of
from jax_bridge.pi0 import Pi0Config, param_shapes


def test_pi0_is_counted_by_expert(orbax_folder):
    found = account(open_checkpoint(orbax_folder))
    assert found["family"] == "pi0"
    shapes = param_shapes(Pi0Config.preset("pi0_micro"))
    assert found["tensors"] == len(shapes)
    parts = found["parts"]
    assert sorted(parts) == ["action expert", "vision", "vlm"]
    assert sum(part["parameters"] for part in parts.values()) == found["parameters"]
    # Both experts have the same sizes here; the VLM has its table on top, the action expert the
    # projections of state, actions and time.
    table = 2048 * 64
    assert parts["vlm"]["parameters"] - table == 172_608
    projections = [name for name in shapes if "PaliGemma" not in name]
    assert parts["action expert"]["tensors"] == 9 - 1 + len(projections)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("PaliGemma/llm/layers/attn/q_einsum_1/w", "action expert"),
        ("PaliGemma/llm/layers/attn/q_einsum/w", "vlm"),
        ("PaliGemma/llm/final_norm_1/scale", "action expert"),
        ("PaliGemma/img/Transformer/encoderblock/LayerNorm_1/scale", "vision"),
        ("time_mlp_in/kernel", "action expert"),
        ("something/else", "other"),
    ],
)
def test_pi0s_names_tell_the_part(name, part):
    assert part_of(name, "pi0") == part


@pytest.mark.parametrize("wrap", ["", "model.", "state_dict.model.", "module.model."])
def test_robovlms_is_counted_by_vlm_and_action_head(wrap):
    names = {
        "backbone.text_model.model.layers.0.w": "vlm",
        "base_model.model.vision_model.w": "vlm",
        "act_head.rnn.w": "action head",
        "action_token": "other",
    }
    family = find_family([wrap + name for name in names])
    assert family == "RoboVLMs"
    assert {name: part_of(wrap + name, family) for name in names} == names


def test_blocks_are_shown_once_with_their_number(tmp_path):
    tensors = {f"layers.{i}.w": torch.zeros(2, 3) for i in range(12)}
    tensors |= {"layers.12.w": torch.zeros(2, 4), "v2.0": torch.zeros(1)}
    save_file(tensors, tmp_path / "m.safetensors")
    found = open_checkpoint(tmp_path / "m.safetensors")
    assert [(kind.pattern, kind.tensors) for kind in kinds(found)] == [
        ("layers.*.w", 12),
        ("layers.*.w", 1),
        ("v2.*", 1),
    ]
    page = describe(found)
    assert "w  [2, 3] float32 x 12" in page
    assert "layers.  80" in page
    assert "no model that is known by its names: 14 tensors, 81 parameters, 324 bytes" in page
