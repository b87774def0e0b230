"""Our π0 and π0.5 against lerobot's PyTorch models, on the same random small weights.

lerobot is in none of our extras: it asks for older versions of torch, numpy and transformers than
ours. Where it can be imported (0.6 is what this was written for) the comparison runs; otherwise it
is skipped, with the reason.
"""

import importlib
import types
import warnings

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.pi0 import Observation, Pi0, Pi0Config
from jax_bridge.pi0.from_torch import convert
from jax_bridge.vocabulary import CAMERAS

STEPS = 2
MODELS = {"pi0": ("PI0Pytorch", "PI0Config"), "pi05": ("PI05Pytorch", "PI05Config")}


def import_lerobot(name: str) -> types.ModuleType:
    path = f"lerobot.policies.{name}.modeling_{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(path)
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch is the latter
        pytest.skip(f"{path} cannot be imported: {error}")


def shrink(monkeypatch: pytest.MonkeyPatch, module: types.ModuleType, config: Pi0Config) -> None:
    """Makes lerobot build a model of our sizes; it has names for the released ones alone."""
    vlm, expert = (
        module.__dict__[name]
        for name in ("PaliGemmaForConditionalGenerationWithPiGemma", "PiGemmaForCausalLM")
    )

    def small_vlm(config_hf):
        vision = config_hf.vision_config
        vision.hidden_size, vision.intermediate_size = config.vision.width, config.vision.mlp_dim
        vision.num_hidden_layers = config.vision.depth
        vision.num_attention_heads = config.vision.heads
        vision.patch_size, vision.projection_dim = config.vision.patch_size, config.vlm.width
        config_hf.projection_dim = config.vlm.width
        config_hf.text_config.vocab_size = config.vocab_size
        return vlm(config=config_hf)

    def small_expert(config_hf):
        config_hf.vocab_size = 8
        return expert(config=config_hf)

    def sizes(variant):
        own = config.vlm if variant == "gemma_2b" else config.action
        return module.GemmaConfig(
            own.width, own.depth, own.mlp_dim, own.heads, own.kv_heads, own.head_dim
        )

    monkeypatch.setattr(
        module, "PaliGemmaForConditionalGenerationWithPiGemma", lambda config: small_vlm(config)
    )
    monkeypatch.setattr(module, "PiGemmaForCausalLM", lambda config: small_expert(config))
    monkeypatch.setattr(module, "get_gemma_config", sizes)


def random_model(module: types.ModuleType, name: str, config: Pi0Config) -> torch.nn.Module:
    """lerobot's model with every parameter drawn, norms and biases included."""
    model, settings = (getattr(module, word) for word in MODELS[name])
    horizon = config.action_horizon
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = model(settings(chunk_size=horizon, n_action_steps=horizon, device="cpu")).eval()
    torch.manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def inputs(config: Pi0Config) -> tuple[Observation, np.ndarray]:
    """Two robots: the second has no right wrist camera and a shorter prompt."""
    rng = np.random.default_rng(0)
    keys = [camera.openpi_key for camera in CAMERAS]
    length, side = config.max_token_len, config.vision.image_size
    valid = np.arange(length)[None] < np.array([[length - 5], [length // 2]])
    words = rng.integers(1, config.vocab_size, (2, length), np.int32)
    observation = Observation(
        images={key: rng.uniform(-1, 1, (2, side, side, 3)).astype(np.float32) for key in keys},
        image_masks={key: np.array([True, key != keys[-1]]) for key in keys},
        state=rng.standard_normal((2, config.action_dim), np.float32),
        tokenized_prompt=np.where(valid, words, 0),
        tokenized_prompt_mask=valid,
    )
    noise = rng.standard_normal((2, config.action_horizon, config.action_dim), np.float32)
    return observation, noise


def ask_lerobot(model: torch.nn.Module, observation: Observation, noise: np.ndarray, name: str):
    keys = [camera.openpi_key for camera in CAMERAS]
    images = [torch.from_numpy(observation.images[key]).permute(0, 3, 1, 2) for key in keys]
    masks = [torch.from_numpy(observation.image_masks[key]) for key in keys]
    words = torch.from_numpy(observation.tokenized_prompt).long()
    state = [torch.from_numpy(observation.state)] if name == "pi0" else []
    with torch.no_grad():
        return model.sample_actions(
            images, masks, words, torch.from_numpy(observation.tokenized_prompt_mask), *state,
            noise=torch.from_numpy(noise), num_steps=STEPS,
        ).numpy()  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_actions_are_those_of_lerobot(tmp_path, monkeypatch, name):
    module = import_lerobot(name)
    config = Pi0Config.preset(f"{name}_micro")
    shrink(monkeypatch, module, config)
    model = random_model(module, name, config)
    weights = {f"model.{key}": value.clone() for key, value in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    converted = convert(open_checkpoint(tmp_path / "model.safetensors"))
    observation, noise = inputs(config)
    ours = Pi0(config).sample_actions(
        jax.tree.map(jax.numpy.asarray, converted.params), observation, noise=noise,
        num_steps=STEPS,
    )  # fmt: skip
    theirs = ask_lerobot(model, observation, noise, name)
    moved = np.abs(theirs - noise).max()
    assert moved > 0.1
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * moved
