"""PyTorch's π0 becomes our tree: against transformers' own modules, and against the documented map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.pi0 import Pi0, Pi0Config, gemma, params_digest
from jax_bridge.pi0.embedding import embed_tokens
from jax_bridge.pi0.from_torch import convert
from jax_bridge.pi0.parameters import cast_params, leaves
from jax_bridge.pi0.siglip import encode_images

VLM = "paligemma_with_expert.paligemma.model"
EXPERT = "paligemma_with_expert.gemma_expert.model"


def as_torch(params, config):
    """The map that openpi's converter documents, from our tree to PyTorch's names, written out."""
    flat = {path: np.asarray(leaf) for path, leaf in leaves(params)}
    out = {}

    def linear(name, kernel, bias):
        out[f"{name}.weight"], out[f"{name}.bias"] = kernel.T, bias

    img, tower = "PaliGemma/img", f"{VLM}.vision_tower.vision_model"
    out[f"{tower}.embeddings.patch_embedding.weight"] = flat[f"{img}/embedding/kernel"].transpose(
        3, 2, 0, 1
    )
    out[f"{tower}.embeddings.patch_embedding.bias"] = flat[f"{img}/embedding/bias"]
    out[f"{tower}.embeddings.position_embedding.weight"] = flat[f"{img}/pos_embedding"][0]
    out[f"{tower}.post_layernorm.weight"] = flat[f"{img}/Transformer/encoder_norm/scale"]
    out[f"{tower}.post_layernorm.bias"] = flat[f"{img}/Transformer/encoder_norm/bias"]
    head = f"{VLM}.multi_modal_projector.linear"
    linear(head, flat[f"{img}/head/kernel"], flat[f"{img}/head/bias"])
    block, width = f"{img}/Transformer/encoderblock", config.vision.width
    for i in range(config.vision.depth):
        layer = f"{tower}.encoder.layers.{i}"
        for n in (0, 1):
            out[f"{layer}.layer_norm{n + 1}.weight"] = flat[f"{block}/LayerNorm_{n}/scale"][i]
            out[f"{layer}.layer_norm{n + 1}.bias"] = flat[f"{block}/LayerNorm_{n}/bias"][i]
            dense = f"{block}/MlpBlock_0/Dense_{n}"
            linear(f"{layer}.mlp.fc{n + 1}", flat[f"{dense}/kernel"][i], flat[f"{dense}/bias"][i])
        attention = f"{block}/MultiHeadDotProductAttention_0"
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            kernel = flat[f"{attention}/{ours}/kernel"][i].reshape(width, -1)
            bias = flat[f"{attention}/{ours}/bias"][i].reshape(-1)
            linear(f"{layer}.self_attn.{theirs}_proj", kernel, bias)
        kernel = flat[f"{attention}/out/kernel"][i].reshape(-1, width)
        linear(f"{layer}.self_attn.out_proj", kernel, flat[f"{attention}/out/bias"][i])
    out[f"{VLM}.language_model.embed_tokens.weight"] = flat[
        "PaliGemma/llm/embedder/input_embedding"
    ]
    for suffix, theirs in (("", f"{VLM}.language_model"), ("_1", EXPERT)):
        _expert_as_torch(flat, out, suffix, theirs, config)
    for path in flat:
        if "/" in path and not path.startswith("PaliGemma") and path.endswith("kernel"):
            name = path.removesuffix("/kernel")
            linear(name, flat[path], flat[f"{name}/bias"])
    return {name: np.ascontiguousarray(array) for name, array in out.items()}


def _expert_as_torch(flat, out, suffix, theirs, config):
    layers = "PaliGemma/llm/layers"

    def norm(name, path, i=...):
        if f"{path}/scale" in flat:
            out[f"{name}.weight"] = flat[f"{path}/scale"][i]
        else:
            out[f"{name}.dense.weight"] = flat[f"{path}/Dense_0/kernel"][i].T
            out[f"{name}.dense.bias"] = flat[f"{path}/Dense_0/bias"][i]

    for i in range(config.depth):
        layer = f"{theirs}.layers.{i}"
        query = flat[f"{layers}/attn/q_einsum{suffix}/w"][i]
        width = query.shape[1]
        out[f"{layer}.self_attn.q_proj.weight"] = query.transpose(0, 2, 1).reshape(-1, width)
        keys = flat[f"{layers}/attn/kv_einsum{suffix}/w"][i]
        out[f"{layer}.self_attn.k_proj.weight"] = keys[0, 0].T
        out[f"{layer}.self_attn.v_proj.weight"] = keys[1, 0].T
        back = flat[f"{layers}/attn/attn_vec_einsum{suffix}/w"][i]
        out[f"{layer}.self_attn.o_proj.weight"] = back.reshape(-1, width).T
        gating = flat[f"{layers}/mlp{suffix}/gating_einsum"][i]
        out[f"{layer}.mlp.gate_proj.weight"] = gating[0].T
        out[f"{layer}.mlp.up_proj.weight"] = gating[1].T
        out[f"{layer}.mlp.down_proj.weight"] = flat[f"{layers}/mlp{suffix}/linear"][i].T
        norm(f"{layer}.input_layernorm", f"{layers}/pre_attention_norm{suffix}", i)
        norm(f"{layer}.post_attention_layernorm", f"{layers}/pre_ffw_norm{suffix}", i)
    norm(f"{theirs}.norm", f"PaliGemma/llm/final_norm{suffix}")


@pytest.fixture(scope="module", params=["pi0_micro", "pi05_micro"])
def pair(request):
    config = Pi0Config.preset(request.param)
    params = Pi0(config).init(0)
    return config, params, as_torch(params, config)


def _save(folder, tensors):
    save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder / "model.safetensors")


def _older(name):
    """As transformers before 4.52 put the parts together."""
    return (
        name.replace(f"{VLM}.vision", f"{VLM[:-6]}.vision")
        .replace(f"{VLM}.language_model", f"{VLM[:-6]}.language_model.model")
        .replace(f"{VLM}.multi", f"{VLM[:-6]}.multi")
    )


@pytest.mark.parametrize("dress", ["openpi", "lerobot", "older lerobot", "tied"])
def test_every_dress_of_the_same_weights_gives_the_same_tree(tmp_path, pair, dress):
    config, params, tensors = pair
    ignored = 0
    if dress != "openpi":
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    if dress == "older lerobot":
        tensors = {_older(name): tensor for name, tensor in tensors.items()}
        tensors["normalize_inputs.buffer_observation_state.mean"] = np.zeros(8, np.float32)
        tensors[f"model.{EXPERT.removesuffix('.model')}.lm_head.weight"] = np.zeros((2, 2))
        ignored = 2
    if dress == "tied":
        table = tensors.pop(f"model.{VLM}.language_model.embed_tokens.weight")
        tensors["model.paligemma_with_expert.paligemma.lm_head.weight"] = table
    found = convert(_save(tmp_path, tensors))
    assert params_digest(found.params) == params_digest(params)
    assert found.config.pi05 == config.pi05
    assert found.used == len(tensors) - ignored
    assert len(found.left_out) == ignored


def test_leaves_are_cast_as_asked(tmp_path, pair):
    _, params, tensors = pair
    found = convert(_save(tmp_path, tensors), dtype="bfloat16")
    assert params_digest(found.params) == params_digest(cast_params(params, "bfloat16"))


def test_a_missing_or_foreign_tensor_is_refused_by_name(tmp_path, pair):
    _, _, tensors = pair
    gone = f"{EXPERT}.layers.2.mlp.up_proj.weight"
    less = {name: tensor for name, tensor in tensors.items() if name != gone}
    with pytest.raises(ValueError, match=r"lacks 1: paligemma_with_expert.gemma_expert.layers.2"):
        convert(_save(tmp_path, less))
    more = {**tensors, f"{EXPERT}.layers.0.lora_A": np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match=r"also has 1 tensors such as .*lora_A\. LoRA weights"):
        convert(_save(tmp_path, more))
    bad = {**tensors, gone: np.zeros((3, 3), np.float32)}
    with pytest.raises(ValueError, match=r"of 8192 numbers, .* has shape \[3, 3\]"):
        convert(_save(tmp_path, bad))
    backbone = {name: tensor for name, tensor in tensors.items() if name.startswith(VLM)}
    with pytest.raises(ValueError, match=r"is π0-FAST, which has no action expert. Choose"):
        convert(_save(tmp_path, backbone))
    with pytest.raises(ValueError, match="has no tensor below paligemma_with_expert"):
        convert(_save(tmp_path, {"w": np.zeros(1, np.float32)}))


@pytest.fixture(scope="module")
def hugging_face():
    """Transformers' own SigLIP and Gemma with random weights, in the sizes of pi0_micro."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
            image_size=224, patch_size=32, vision_use_head=False, attn_implementation="eager",
        )
    )  # fmt: skip
    text = transformers.GemmaModel(
        transformers.GemmaConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=1, head_dim=16, vocab_size=2048, attn_implementation="eager",
            hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
        )
    )  # fmt: skip
    for module in (vision, text):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return vision.eval(), text.eval()


def test_converted_weights_compute_what_transformers_computes(tmp_path, hugging_face):
    config = Pi0Config.preset("pi0_micro")
    vision, text = hugging_face
    tensors = as_torch(Pi0(config).init(0), config)
    head = [tensors[f"{VLM}.multi_modal_projector.linear.{part}"] for part in ("weight", "bias")]
    for prefix, module in (("vision_tower", vision), ("language_model", text)):
        for name, parameter in module.state_dict().items():
            name = name.removeprefix("vision_model.")
            inner = "vision_tower.vision_model" if prefix == "vision_tower" else prefix
            assert f"{VLM}.{inner}.{name}" in tensors
            tensors[f"{VLM}.{inner}.{name}"] = parameter.numpy()
    params = jax.tree.map(jnp.asarray, convert(_save(tmp_path, tensors)).params)
    image = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 2048, (2, 9))
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
        seen = vision(pixels).last_hidden_state.numpy() @ head[0].T + head[1]
        everyone = torch.zeros((2, 1, 9, 9))
        read = text(torch.from_numpy(ids), attention_mask=everyone).last_hidden_state.numpy()
    ours = encode_images(
        params["PaliGemma"]["img"], jnp.asarray(image), config.vision, jnp.dtype("float32")
    )
    assert np.abs(ours - seen).max() <= 1e-5
    llm = params["PaliGemma"]["llm"]
    hidden = gemma.run_layers(
        gemma.stack_layers(llm, "", jnp.dtype("float32")),
        embed_tokens(params, jnp.asarray(ids), config),
        jnp.ones((2, 9, 9), bool),
        gemma.rope(jnp.tile(jnp.arange(9), (2, 1)), 16),
        config.vlm,
    ).hidden
    ours = gemma.rms_norm(hidden, scale=llm["final_norm"]["scale"]).value
    assert np.abs(read).max() > 1
    assert np.abs(ours - read).max() <= 2e-4 * np.abs(read).max()
