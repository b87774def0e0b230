"""Finds the model that a parameter tree belongs to, from names and shapes alone."""

from typing import Any

import numpy as np

from jax_bridge.pi0.config import PRESETS, ExpertConfig, Pi0Config, VisionConfig
from jax_bridge.pi0.parameters import Params, check_params, differences, leaves


def infer_config(params: Params, **changes: Any) -> Pi0Config:
    """The config whose parameters these are.

    Args:
        params: A whole parameter tree.
        **changes: Fields that no parameter tells: `action_horizon`, `max_token_len`, `dtype`.

    Raises:
        ValueError: naming the parameters that are missing, extra or misshapen, compared with
            the model that the tree comes nearest to.
    """
    candidates = [Pi0Config.preset(name) for name in PRESETS]
    read = _read_sizes({path: tuple(np.shape(leaf)) for path, leaf in leaves(params)})
    if read is not None:
        candidates.insert(0, read)
    nearest = min(candidates, key=lambda config: len(differences(params, config)))
    check_params(params, nearest)
    fields = {name: getattr(nearest, name) for name in nearest.__dataclass_fields__}
    return Pi0Config(**{**fields, **changes})


def _read_sizes(shapes: dict[str, tuple[int, ...]]) -> Pi0Config | None:
    """Sizes as a few leaves tell them; None if these do not fit together."""
    img, llm = "PaliGemma/img", "PaliGemma/llm"
    block = f"{img}/Transformer/encoderblock"
    try:
        depth, width, heads, _ = shapes[f"{block}/MultiHeadDotProductAttention_0/query/kernel"]
        patch = shapes[f"{img}/embedding/kernel"][0]
        pi05 = "time_mlp_in/kernel" in shapes
        return Pi0Config(
            vision=VisionConfig(
                width=width,
                depth=depth,
                mlp_dim=shapes[f"{block}/MlpBlock_0/Dense_0/kernel"][-1],
                heads=heads,
                patch_size=patch,
                image_size=patch * round(shapes[f"{img}/pos_embedding"][1] ** 0.5),
            ),
            vlm=_read_expert(shapes, ""),
            action=_read_expert(shapes, "_1"),
            vocab_size=shapes[f"{llm}/embedder/input_embedding"][0],
            action_dim=shapes["action_in_proj/kernel"][0],
            max_token_len=200 if pi05 else 48,
            pi05=pi05,
        )
    except (KeyError, ValueError, IndexError):
        return None


def _read_expert(shapes: dict[str, tuple[int, ...]], suffix: str) -> ExpertConfig:
    """Sizes of one expert."""
    layers = "PaliGemma/llm/layers"
    depth, heads, width, head_dim = shapes[f"{layers}/attn/q_einsum{suffix}/w"]
    return ExpertConfig(
        width=width,
        depth=depth,
        mlp_dim=shapes[f"{layers}/mlp{suffix}/linear"][1],
        heads=heads,
        kv_heads=shapes[f"{layers}/attn/kv_einsum{suffix}/w"][2],
        head_dim=head_dim,
    )
