"""A checkpoint as `ki fit` writes it, of a model that answers in milliseconds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from jax_bridge.fast.files import save_tokenizer
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.pi0 import Pi0, Pi0Config, save_params
from jax_bridge.policies.conventions import Recipe
from jax_bridge.policies.normalisation import FieldStatistics, NormStats
from jax_bridge.policies.tokenizers import make_tokenizer

STEPS, DIMS, LENGTH, SKIP = 4, 7, 40, 3
CHUNKS = np.random.default_rng(2).uniform(-1, 1, (60, STEPS, DIMS))
TOKENIZER = learn_tokenizer(CHUNKS, vocab_size=300)


def small_preset(horizon: int) -> dict[str, Any]:
    """Fields of a preset that is compiled and trained in seconds, for `PRESETS`."""
    config = Pi0Config.preset("pi0_micro")
    thin = dataclasses.replace(config.vlm, depth=1, width=16, mlp_dim=32, heads=2, head_dim=8)
    vision = dataclasses.replace(config.vision, width=16, mlp_dim=32, image_size=32)
    return {
        "pi05": False, "vision": vision, "vlm": thin, "action": thin, "vocab_size": 1280,
        "action_horizon": horizon, "action_dim": 8,
    }  # fmt: skip


def fast_ids():
    return FastIds.of(make_tokenizer("words"), 300, rows=1280, skip=SKIP, size=LENGTH)


def statistics(name, dims):
    low = np.linspace(-2.0, -1.0, dims)
    return FieldStatistics(name=name, mean=low * 0, std=low * 0 + 1, q01=low, q99=-2 * low)


def write_checkpoint(folder: Path) -> Path:
    """Weights that know nothing, with all that `ki fit` writes beside them."""
    config = Pi0Config.preset("pi0_micro", action_horizon=STEPS, action_dim=8, max_token_len=16)
    thin = dataclasses.replace(config.vlm, depth=1, width=16, mlp_dim=32, heads=2, head_dim=8)
    vision = dataclasses.replace(config.vision, width=16, mlp_dim=32, image_size=64)
    config = dataclasses.replace(config, vlm=thin, action=thin, vision=vision, vocab_size=1280)
    save_params(folder / "params", Pi0(config).init(0))
    assets = folder / "assets/tabletop"
    save_tokenizer(TOKENIZER, assets / "fast")
    stats = NormStats(state=statistics("state", 8), actions=statistics("actions", DIMS))
    (assets / "norm_stats.json").write_text(json.dumps(stats.to_json()))
    policy = {
        "tokenizer": "words", "convention": "tabletop", "fast_skip": SKIP, "fast_length": LENGTH,
        "recipe": dataclasses.asdict(Recipe(normalisation="quantile")),
    }  # fmt: skip
    entry = {"config": config.to_json(), "policy": policy}
    (folder / "assets/model.json").write_text(json.dumps(entry))
    return folder
