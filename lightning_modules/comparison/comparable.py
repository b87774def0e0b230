"""What must be alike before two sets of vectors are compared, and how to compare them anyway."""

import json
from collections.abc import Collection, Iterator
from typing import Any, Literal

from lightning_modules.comparison.side import Side

Difference = Literal["profile", "prompts", "dtype"]
DIFFERENCES: tuple[Difference, ...] = ("profile", "prompts", "dtype")
"""What can be allowed to differ; then every page says so."""


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 90 else text[:89] + "…"


def differences(a: Side, b: Side) -> Iterator[tuple[Difference, str, str]]:
    """Yields what differs: the word, and what is seen of A and B."""
    if a.facts["profile"] != b.facts["profile"]:
        yield "profile", _short(a.facts["profile"]), _short(b.facts["profile"])
    if a.prompts != b.prompts:
        alone = [
            sorted(one - other) for one, other in ((a.prompts, b.prompts), (b.prompts, a.prompts))
        ]
        seen = [f"{len(x)} of its own {_short(x[:2])}" if x else "none of its own" for x in alone]
        yield "prompts", seen[0], seen[1]
    if a.facts["dtype"] != b.facts["dtype"]:
        yield "dtype", a.facts["dtype"], b.facts["dtype"]


def check_comparable(a: Side, b: Side, allow: Collection[str] = ()) -> list[str]:
    """Refuses what cannot be compared; returns what the reader must know.

    Args:
        a: one side.
        b: the other.
        allow: words of `DIFFERENCES` that may differ.

    Raises:
        ValueError: if a word is unknown, or the sides differ in what is not allowed.
    """
    unknown = sorted(set(allow) - set(DIFFERENCES))
    if unknown:
        raise ValueError(
            f"`--allow` must be words of {', '.join(DIFFERENCES)}, but got {', '.join(unknown)}."
        )
    if a.vectors.shape[1] != b.vectors.shape[1]:
        raise ValueError(
            f"`A` and `B` must have vectors of one width, but got {a.vectors.shape[1]} "
            f"({a.cell.name}) and {b.vectors.shape[1]} ({b.cell.name}). Choose another field."
        )
    if a.facts["content"] == b.facts["content"] and a.cell == b.cell and set(a.keys) & set(b.keys):
        raise ValueError(
            f"`A` and `B` must be different vectors, but got {a.cell.name} of the same samples "
            "twice. Choose another layer, or other episodes with --episode_range_b."
        )
    notes = []
    for word, first, second in differences(a, b):
        if word not in allow:
            raise ValueError(
                f"`A` and `B` must have the same {word}, but got {first} and {second}: a "
                f"difference in the vectors would not be one of the models. Capture both alike, or "
                f"compare them anyway with --allow {word}."
            )
        notes.append(
            f"A and B differ in their {word} ({first}; {second}), which was allowed: what is "
            "found below may come from that alone."
        )
    return notes
