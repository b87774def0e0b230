"""Kosmos-2 out of tensors: sizes from their shapes, every one of them loaded.

Source: transformers' Kosmos-2 (version 5), whose names RoboVLMs keeps.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.capture.robovlms.tensor_account import listed

EMBEDDING = "text_model.model.embed_tokens.weight"
OUTPUT = "text_model.lm_head.weight"
"""Tied to the embedding, so some savers leave it out."""


def require_kosmos() -> None:
    """Looks for transformers before a large file is read.

    Raises:
        ImportError: if it is not installed, or has no Kosmos-2.
    """
    try:
        from transformers import Kosmos2ForConditionalGeneration  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`RoboVLMs` needs transformers 5 with Kosmos-2. Install it with `pip install "
            "'vla-lens[context]'`."
        ) from error


def kosmos_config(tensors: Mapping[str, Tensor], *, text_heads: int, vision_heads: int) -> Any:
    """The configuration that these shapes mean; numbers of heads have no shape.

    Raises:
        ValueError: if a tensor that tells a size is missing, or heads do not divide a width.
    """
    from transformers import Kosmos2Config

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(
                f"`checkpoint` must hold all of Kosmos-2, but {name} is missing among "
                f"{len(tensors)} tensors of the backbone such as {listed(list(tensors))}."
            )
        return tuple(tensors[name].shape)

    words, width = shape(EMBEDDING)
    patches, vision_width = shape("vision_model.model.embeddings.position_embedding.weight")
    patch = shape("vision_model.model.embeddings.patch_embedding.weight")[-1]
    for name, heads, size in (
        ("text_heads", text_heads, width), ("vision_heads", vision_heads, vision_width),
    ):  # fmt: skip
        if heads < 1 or size % heads:
            raise ValueError(f"`{name}` must divide the width {size}, but got {heads}.")
    text, vision = "text_model.model.layers", "vision_model.model.encoder.layers"
    return Kosmos2Config(
        text_config={
            "vocab_size": words, "embed_dim": width, "layers": _depth(tensors, text),
            "ffn_dim": shape(f"{text}.0.ffn.fc1.weight")[0], "attention_heads": text_heads,
        },
        vision_config={
            "hidden_size": vision_width, "num_hidden_layers": _depth(tensors, vision),
            "intermediate_size": shape(f"{vision}.0.mlp.fc1.weight")[0],
            "num_attention_heads": vision_heads, "patch_size": patch,
            "image_size": patch * round((patches - 1) ** 0.5),
        },
        latent_query_num=shape("image_to_text_projection.latent_query")[0],
    )  # fmt: skip


def _depth(tensors: Mapping[str, Tensor], stack: str) -> int:
    found = (re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def check_backbone(tensors: Mapping[str, Tensor], config: Any) -> None:
    """Compares names and shapes with a Kosmos-2 of this configuration.

    Raises:
        ValueError: naming what is missing, left over or of another shape.
    """
    from transformers import Kosmos2ForConditionalGeneration

    with torch.device("meta"):
        expected = {
            name: tuple(value.shape)
            for name, value in Kosmos2ForConditionalGeneration(config).state_dict().items()
        }
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    kinds = {"missing": missing, "left over": extra, "of another shape": reshaped}
    wrong = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
    if wrong:
        raise ValueError(
            f"`checkpoint` must hold the {len(expected)} tensors of a Kosmos-2 of its size, but "
            f"there are {'; '.join(wrong)}. Nothing was loaded."
        )


def build_kosmos(tensors: dict[str, Tensor], config: Any, dtype: torch.dtype) -> nn.Module:
    """A Kosmos-2 that holds these tensors, and no other.

    Raises:
        ValueError: if a tensor did not arrive.
    """
    from transformers import Kosmos2ForConditionalGeneration
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # ours is the one that is shown
    try:
        model = Kosmos2ForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype
        )
    finally:
        if shown:
            logging.enable_progress_bar()
    loaded = model.state_dict()
    absent = [
        name for name, value in tensors.items() if not torch.equal(loaded[name], value.to(dtype))
    ]
    if absent:
        raise ValueError(
            f"`checkpoint` must be loaded whole, but {len(absent)} tensors did not arrive: "
            f"{listed(absent)}. This version of transformers loads Kosmos-2 in another way."
        )
    return model.eval()
