"""How the vectors of tokens become one vector of the text.

Letters: m texts, l tokens, v numbers a token.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Hidden = Float[Tensor, "m l v"]
Valid = Bool[Tensor, "m l"]


def mean(hidden: Hidden, valid: Valid) -> Float[Tensor, "m v"]:
    """The mean over valid tokens."""
    weight = valid[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def first(hidden: Hidden, valid: Valid) -> Float[Tensor, "m v"]:
    """The first valid token, such as BERT's [CLS]."""
    return hidden[torch.arange(len(hidden)), valid.int().argmax(1)]


def last(hidden: Hidden, valid: Valid) -> Float[Tensor, "m v"]:
    """The last valid token, on whichever side the padding is."""
    place = hidden.shape[1] - 1 - valid.int().flip(1).argmax(1)
    return hidden[torch.arange(len(hidden)), place]


def largest(hidden: Hidden, valid: Valid) -> Float[Tensor, "m v"]:
    """The largest value of each dimension over valid tokens."""
    return hidden.masked_fill(~valid[..., None], -torch.inf).amax(1)


POOLINGS: dict[str, Callable[[Hidden, Valid], Float[Tensor, "m v"]]] = {
    "mean": mean,
    "cls": first,
    "lasttoken": last,
    "max": largest,
}
NEUTRAL = ("Transformer", "Pooling", "Normalize")
"""Modules of sentence-transformers that are read or that change no direction."""


def pooling_of(folder: Path) -> str:
    """What the configuration of a sentence-transformer says; `mean` where there is none.

    Raises:
        ValueError: if the folder asks for more than a transformer and a known pooling.
    """
    modules = folder / "modules.json"
    if not modules.is_file():
        return "mean"
    listed: list[dict[str, Any]] = json.loads(modules.read_text())
    kinds = [str(entry["type"]).rsplit(".", 1)[-1] for entry in listed]
    unknown = [kind for kind in kinds if kind not in NEUTRAL]
    if unknown or kinds[:1] != ["Transformer"] or listed[0]["path"]:
        raise ValueError(
            f"`encoder` must be a transformer with pooling and nothing behind it, but got modules "
            f"{', '.join(kinds)} in {folder}. Choose another encoder."
        )
    places = [entry["path"] for entry, kind in zip(listed, kinds, strict=True) if kind == "Pooling"]
    if not places:
        return "mean"
    return _named(json.loads((folder / places[0] / "config.json").read_text()), folder)


def _named(config: dict[str, Any], folder: Path) -> str:
    prefix = "pooling_mode_"
    chosen = [key.removeprefix(prefix) for key, on in config.items() if on is True]
    chosen = [key.removesuffix("_tokens").removesuffix("_token") for key in chosen]
    named = config.get("pooling_mode")
    known = [named] if isinstance(named, str) else [key for key in chosen if key in POOLINGS]
    others = [key for key in config if key.startswith(prefix) and config[key] is True]
    if len(known) != 1 or known[0] not in POOLINGS or len(others) > 1:
        raise ValueError(
            f"`encoder` must pool by one of {', '.join(POOLINGS)}, but got {named or others} in "
            f"{folder}. Choose another encoder."
        )
    return known[0]
