"""Which part of a model a tensor belongs to, by its name: by expert, or VLM and action head.

A family is one table below: rules are tried from the top, and what no rule fits is `other`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

OTHER = "other"
WRAPPERS = ("module.", "_forward_module.", "model.")
"""What trainers put before every name."""


class Family(NamedTuple):
    """How the names of one kind of model tell its parts."""

    sign: str
    """Pattern that some name of this family, and none of another, begins with."""
    rules: tuple[tuple[str, str], ...]
    """Pattern of a name's beginning, and the part."""


FAMILIES: dict[str, Family] = {
    "pi0": Family(
        r"PaliGemma/",
        (
            (r"PaliGemma/img/", "vision"),
            (r"PaliGemma/llm/(.*/)?\w+_1/", "action expert"),
            (r"PaliGemma/llm/", "vlm"),
            (r"(action_|state_proj|time_mlp)", "action expert"),
        ),
    ),
    "pi0 in PyTorch": Family(
        r"paligemma_with_expert\.",
        (
            (r"paligemma_with_expert\.paligemma\..*(vision_tower|multi_modal_projector)", "vision"),
            (r"paligemma_with_expert\.gemma_expert\.", "action expert"),
            (r"paligemma_with_expert\.paligemma\.", "vlm"),
            (r"(action_|state_proj|time_mlp)", "action expert"),
        ),
    ),
    "RoboVLMs": Family(
        r"(act_head\.|action_token$)",
        (
            (r"act_head\.", "action head"),
            (r"(backbone|base_model|text_model|vision_model|image_to_text_projection)\b", "vlm"),
        ),
    ),
    "Kosmos-2": Family(
        r"(text_model|vision_model|image_to_text_projection)\.",
        ((r"(text_model|vision_model|image_to_text_projection)\.", "vlm"),),
    ),
}
"""The first one of which a name bears the sign is taken."""


def find_family(names: Iterable[str]) -> str | None:
    """The family of a checkpoint; None where no table fits."""
    bare = [unwrapped(name) for name in names]
    for family, (sign, _) in FAMILIES.items():
        if any(re.match(sign, name) for name in bare):
            return family
    return None


def part_of(name: str, family: str | None) -> str:
    """The part that a tensor belongs to."""
    rules = FAMILIES[family].rules if family else ()
    bare = unwrapped(name)
    return next((part for pattern, part in rules if re.match(pattern, bare)), OTHER)


def unwrapped(name: str) -> str:
    """A name without what trainers and `torch.save` put before it."""
    for top in ("state_dict.", "model_state_dict."):
        name = name.removeprefix(top)
    changed = True
    while changed:
        before = name
        for wrapper in WRAPPERS:
            name = name.removeprefix(wrapper)
        changed = name != before
    return name
