"""Which leaves belong to the backbone and which to the action expert."""

import re
from typing import Literal, get_args

Group = Literal["vision", "embedder", "backbone", "expert"]
GROUPS: tuple[Group, ...] = get_args(Group)
BACKBONE_GROUPS: tuple[Group, ...] = ("vision", "embedder", "backbone")
"""What the token loss trains."""

LORA_PREFIX = "lora/"
"""Where low-rank changes stand in the tree of a state."""

_EXPERT_OF_BLOCKS = re.compile(r"_1(/|$)")


def group_of(path: str) -> Group:
    """The group of a leaf, by its path.

    Args:
        path: keys joined by "/", `PaliGemma/llm/layers/attn/q_einsum_1/w`; the low-rank changes of
            a leaf (`lora/...`) belong to its group.
    """
    path = path.removeprefix(LORA_PREFIX)
    if path.startswith("PaliGemma/img/"):
        return "vision"
    if path.startswith("PaliGemma/llm/embedder/"):
        return "embedder"
    if path.startswith("PaliGemma/") and not _EXPERT_OF_BLOCKS.search(path):
        return "backbone"
    return "expert"
