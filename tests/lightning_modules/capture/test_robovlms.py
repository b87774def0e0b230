"""RoboVLMs from its checkpoint alone: the documented numbers, or a refusal with the reason."""

import argparse
import sys

import pytest
import torch
from safetensors.torch import save_file
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from lightning_modules.capture.model_digest import model_digest
from lightning_modules.capture.robovlms.kosmos import check_backbone, kosmos_config
from lightning_modules.capture.robovlms.robovlms import RoboVLMs
from tests.lightning_modules.capture.conftest import frame_batch
from tests.lightning_modules.capture.tiny_robovlms import (
    DEPTH,
    SIZES,
    action_hs,
    save,
    tiny_tensors,
)

CLOSE = {"rtol": 0, "atol": 2e-5}
"""Of vectors whose numbers are about 1, after a LayerNorm, in float32."""


def expected(tensors, batch, **options):
    return action_hs(
        tensors, batch.tokens, batch.images["base"], gripper=batch.images.get("gripper"), **options
    )


@pytest.mark.parametrize("gripper", [False, True])
@pytest.mark.parametrize("history", ["post", "pre"])
def test_the_vector_is_what_the_documented_path_gives(tensors, checkpoint, gripper, history):
    model = RoboVLMs(checkpoint, history=history, **SIZES)
    batch = frame_batch(rows=2, window=2, gripper=gripper)
    vectors = model(batch)
    assert vectors.shape == (2, 2, 1, 32)
    torch.testing.assert_close(vectors, expected(tensors, batch, history=history), **CLOSE)


def test_with_post_a_frame_does_not_depend_on_its_window(checkpoint):
    model = RoboVLMs(checkpoint, **SIZES)
    batch = frame_batch(rows=1, window=3)
    alone = batch._replace(images={"base": batch.images["base"][:, 2:]})
    torch.testing.assert_close(model(batch)[:, 2:], model(alone), **CLOSE)


def test_the_head_tells_how_many_action_tokens_there_are(tmp_path):
    tensors = tiny_tensors(latent=3)
    path = save(tmp_path / "policy.pt", tensors)
    batch = frame_batch(rows=2)
    vectors = RoboVLMs(path, **SIZES)(batch)
    assert vectors.shape == (2, 1, 3, 32)
    torch.testing.assert_close(vectors, expected(tensors, batch, latent=3), **CLOSE)
    with pytest.raises(
        ValueError, match="`latent` must be what the action head takes, 3, but got 2"
    ):
        RoboVLMs(path, latent=2, **SIZES)


@pytest.mark.parametrize(
    ("prefix", "container"),
    [("", None), ("model.", "state_dict"), ("module.model.", "model_state_dict"),
     ("_forward_module.model.", "state_dict")],
)  # fmt: skip
def test_every_way_of_naming_gives_the_same_model(tensors, checkpoint, tmp_path, prefix, container):
    path = save(tmp_path / "policy.pt", tensors, prefix=prefix, container=container)
    model = RoboVLMs(path, **SIZES)
    assert model.account.root == prefix
    assert model.account.backbone == len(tensors) - 3
    assert model_digest(model) == model_digest(RoboVLMs(checkpoint, **SIZES))


def lora_tensors(tensors, *, rank=2, alpha=8.0):
    """LoRA beside one layer, the backbone twice, and the tensors that it means."""
    torch.manual_seed(5)
    name = "text_model.model.layers.1.self_attn.q_proj"
    held = {n: t for n, t in tensors.items() if n != f"backbone.{name}.weight"}
    base = tensors[f"backbone.{name}.weight"]
    a, b = torch.randn(rank, base.shape[1]), torch.randn(base.shape[0], rank)
    held[f"backbone.{name}.base_layer.weight"] = base
    held[f"backbone.{name}.lora_A.default.weight"] = a
    held[f"backbone.{name}.lora_B.default.weight"] = b
    bias = held.pop(f"backbone.{name}.bias")
    held[f"backbone.{name}.base_layer.bias"] = bias
    alias = {
        n.replace("backbone.", "model.base_model.model.", 1): t
        for n, t in held.items()
        if n.startswith("backbone.")
    }
    meant = {**tensors, f"backbone.{name}.weight": base + alpha / rank * b @ a}
    return {**held, **alias}, meant


def test_lora_is_merged_and_the_second_copy_of_the_backbone_is_counted(tensors, tmp_path):
    held, meant = lora_tensors(tensors)
    path = save(tmp_path / "policy.pt", held)
    model = RoboVLMs(path, lora_alpha=8.0, **SIZES)
    assert (model.account.lora, model.account.aliases) == (2, len(tensors) - 3 + 2)
    batch = frame_batch(rows=1)
    torch.testing.assert_close(model(batch), expected(meant, batch), **CLOSE)
    with pytest.raises(ValueError, match=r"`lora_alpha` must be given .* r is 2"):
        RoboVLMs(path, **SIZES)


def without(tensors, name):
    return {n: t for n, t in tensors.items() if n != name}


LAYER = f"backbone.text_model.model.layers.{DEPTH - 1}"
BROKEN = {
    "a missing tensor": (
        lambda t: without(t, f"{LAYER}.ffn.fc2.bias"),
        r"1 missing \(text_model.model.layers.1.ffn.fc2.bias\). Nothing was loaded",
    ),
    "one of another shape": (
        lambda t: {**t, f"{LAYER}.ffn.fc2.bias": torch.zeros(5)},
        r"1 of another shape \(text_model.model.layers.1.ffn.fc2.bias \(5,\) instead of \(32,\)",
    ),
    "one too many": (
        lambda t: {**t, "backbone.text_model.model.extra": torch.zeros(5)},
        r"1 left over \(text_model.model.extra\)",
    ),
    "one of no known place": (
        lambda t: {**t, "critic.weight": torch.zeros(5)},
        r"also has 1 tensors of no known place: model.critic.weight",
    ),
    "no action token": (
        lambda t: without(t, "action_token"), r"must hold one action_token.* but got none among",
    ),
    "an action token of zeros": (
        lambda t: {**t, "action_token": torch.zeros(32)}, "its action_token is all zeros",
    ),
    "an action token of NaN": (
        lambda t: {**t, "action_token": torch.full((32,), torch.nan)}, "a finite action_token",
    ),
    "an action token of another width": (
        lambda t: {**t, "action_token": torch.ones(31)}, r"of the width 32, but its shape is \(31,\)",
    ),
    "a state that the backbone reads": (
        lambda t: {**t, "embed_state.weight": torch.zeros(5)}, "this one has embed_state as well",
    ),
    "two backbones": (
        lambda t: {**t, "model.base_model.model.text_model.model.layer_norm.bias": torch.ones(32)},
        "two different tensors for text_model.model.layer_norm.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_checkpoint_is_refused_with_the_reason(tensors, tmp_path, case):
    change, message = BROKEN[case]
    path = save(tmp_path / "policy.pt", change(tensors))
    with pytest.raises(ValueError, match=message):
        RoboVLMs(path, **SIZES)


def test_stock_kosmos_is_named(tensors, tmp_path):
    stock = {
        n.removeprefix("backbone."): t for n, t in tensors.items() if n.startswith("backbone.")
    }
    path = save(tmp_path / "kosmos.pt", stock, prefix="", container=None)
    with pytest.raises(ValueError, match="These are the names of stock Kosmos-2"):
        RoboVLMs(path, **SIZES)


def test_heads_that_do_not_divide_the_width_are_refused(checkpoint):
    with pytest.raises(ValueError, match="`text_heads` must divide the width 32, but got 7"):
        RoboVLMs(checkpoint, text_heads=7, vision_heads=3)


def test_known_parts_of_other_objectives_are_counted_not_used(tensors, checkpoint, tmp_path):
    path = save(tmp_path / "policy.pt", {**tensors, "fwd_head.weight": torch.zeros(3)})
    model = RoboVLMs(path, **SIZES)
    assert model.account.unused == {"fwd_head": 1}
    assert "1 of fwd_head, not needed" in str(model.account)


class Surprise:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_not_run_unless_it_is_trusted(tensors, tmp_path):
    trace = tmp_path / "trace"
    named = {f"model.{n}": t for n, t in tensors.items()}
    torch.save({"state_dict": named, "note": Surprise(str(trace))}, tmp_path / "policy.pt")
    with pytest.raises(ValueError, match=r"would also import .*open.*`trust: true`"):
        RoboVLMs(str(tmp_path / "policy.pt"), **SIZES)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "policy.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"`checkpoint` must .*policy.pt"):
        RoboVLMs(str(tmp_path / "policy.pt"), **SIZES)
    with pytest.raises(FileNotFoundError, match=r"`checkpoint` must be a file, but /nowhere.pt"):
        RoboVLMs("/nowhere.pt", **SIZES)


def test_inputs_of_another_kind_are_refused(checkpoint):
    model = RoboVLMs(checkpoint, **SIZES)
    with pytest.raises(ValueError, match="`tokenizer` must be given for RoboVLMs, but got None"):
        model(frame_batch(tokens=None))
    with pytest.raises(ValueError, match="knows 20 tokens, but got token 77"):
        model(frame_batch(tokens=(0, 77, 2)))
    small = frame_batch(rows=1)._replace(images={"base": torch.zeros(1, 1, 3, 64, 64)})
    with pytest.raises(
        ValueError, match=r"`profile` must give float images of 224 x 224, but base"
    ):
        model(small)


def test_the_sizes_of_kosmos_2_are_read_off_its_shapes():
    """The real one: 886 tensors, told by their shapes alone."""
    with torch.device("meta"):
        tensors = Kosmos2ForConditionalGeneration(Kosmos2Config()).state_dict()
    assert len(tensors) == 886
    config = kosmos_config(tensors, text_heads=32, vision_heads=16)
    check_backbone(tensors, config)
    stock = Kosmos2Config()
    for part in ("text_config", "vision_config"):
        assert getattr(config, part).to_dict() == getattr(stock, part).to_dict()
    assert config.latent_query_num == 64


def test_a_file_that_is_trusted_is_read(tensors, checkpoint, tmp_path):
    named = {f"model.{n}": t for n, t in tensors.items()}
    path = str(tmp_path / "policy.pt")
    torch.save({"state_dict": named, "arguments": argparse.Namespace(seed=1)}, path)
    with pytest.raises(ValueError, match=r"would also import argparse.Namespace"):
        RoboVLMs(path, **SIZES)
    trusted = RoboVLMs(path, trust=True, **SIZES)
    assert model_digest(trusted) == model_digest(RoboVLMs(checkpoint, **SIZES))


def test_safetensors_give_the_same_model(tensors, checkpoint, tmp_path):
    path = str(tmp_path / "policy.safetensors")
    # The format refuses tensors that share memory, as the tied output does.
    save_file({n: t.clone() for n, t in tensors.items()}, path)
    same = model_digest(RoboVLMs(checkpoint, **SIZES))
    assert model_digest(RoboVLMs(path, **SIZES)) == same
    content = (tmp_path / "policy.safetensors").read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"`checkpoint` must be whole, but .*policy.safetensors"):
        RoboVLMs(path, **SIZES)


def test_a_tied_output_may_be_left_out_and_old_buffers_are_computed_anew(
    tensors, checkpoint, tmp_path
):
    held = without(tensors, "backbone.text_model.lm_head.weight")
    held["backbone.vision_model.model.embeddings.position_ids"] = torch.arange(17)[None]
    model = RoboVLMs(save(tmp_path / "policy.pt", held), **SIZES)
    assert (model.account.recomputed, model.account.backbone) == (1, len(tensors) - 4)
    assert model_digest(model) == model_digest(RoboVLMs(checkpoint, **SIZES))


def test_a_fine_tuned_copy_of_a_module_replaces_its_original(tensors, tmp_path):
    name = "backbone.image_to_text_projection.dense"
    held = without(tensors, f"{name}.weight")
    held[f"{name}.original_module.weight"] = tensors[f"{name}.weight"]
    tuned = tensors[f"{name}.weight"] + 0.5
    held[f"{name}.modules_to_save.default.weight"] = tuned
    model = RoboVLMs(save(tmp_path / "policy.pt", held), **SIZES)
    assert model.account.replaced == 1
    batch = frame_batch(rows=1)
    meant = {**tensors, f"{name}.weight": tuned}
    torch.testing.assert_close(model(batch), expected(meant, batch), **CLOSE)


def test_half_a_pair_of_factors_and_two_adapters_are_refused(tensors, tmp_path):
    held, _ = lora_tensors(tensors)
    factor = "backbone.text_model.model.layers.1.self_attn.q_proj.lora_B.default.weight"
    alias = factor.replace("backbone.", "model.base_model.model.", 1)
    half = without(without(held, factor), alias)
    with pytest.raises(
        ValueError, match=r"both LoRA factors .*q_proj it holds only A and the base"
    ):
        RoboVLMs(save(tmp_path / "half.pt", half), lora_alpha=8.0, **SIZES)
    two = {**held, factor.replace("default", "second"): held[factor]}
    with pytest.raises(
        ValueError, match=r"must have one LoRA adapter, but has \['default', 'second'\]"
    ):
        RoboVLMs(save(tmp_path / "two.pt", two), lora_alpha=8.0, **SIZES)


def test_vectors_come_in_the_type_that_is_asked_for(tensors, checkpoint):
    batch = frame_batch(rows=1)
    vectors = RoboVLMs(checkpoint, dtype="bfloat16", **SIZES)(batch)
    assert vectors.dtype == torch.bfloat16
    torch.testing.assert_close(vectors.float(), expected(tensors, batch), rtol=0, atol=0.1)


def test_without_transformers_it_says_what_to_install(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"needs transformers 5 .* 'vla-lens\[context\]'"):
        RoboVLMs(checkpoint, **SIZES)
