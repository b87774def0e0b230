"""Where every tensor of a checkpoint went. Nothing is loaded unless all of it is accounted for."""

import dataclasses
from typing import Any

SHOWN = 4
"""Names that an error shows of each kind."""


@dataclasses.dataclass(kw_only=True)
class TensorAccount:
    """Counts of tensors by what became of them."""

    total: int
    """In the file."""
    root: str
    """What stood before every name: `model.`, `module.model.`, or nothing."""
    backbone: int = 0
    """Tensors of Kosmos-2 that the file gave; all of the model's, or loading fails."""
    action_token: int = 0
    act_head: int = 0
    """Of the action head: read for its shapes, not run, since the vector is what it receives."""
    lora: int = 0
    """LoRA factors that were merged into the backbone."""
    aliases: int = 0
    """Second copies of the same tensor, equal to the first."""
    recomputed: int = 0
    """Buffers that the model computes itself, as positions."""
    replaced: int = 0
    """Originals that a fine-tuned copy stands in for."""
    unused: dict[str, int] = dataclasses.field(default_factory=dict)
    """Known parts that the vector does not pass through, by name."""

    def check(self) -> None:
        """Every tensor is counted once."""
        parts = (
            self.backbone, self.action_token, self.act_head, self.lora, self.aliases,
            self.recomputed, self.replaced, *self.unused.values(),
        )  # fmt: skip
        assert sum(parts) == self.total, (self, sum(parts))

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        words = {
            "LoRA factors merged": self.lora,
            "second copies": self.aliases,
            "buffers computed anew": self.recomputed,
            "originals that fine-tuned copies replace": self.replaced,
            **{f"of {name}, not needed": count for name, count in self.unused.items()},
        }
        more = "".join(f", {count} {name}" for name, count in words.items() if count)
        return (
            f"{self.total} tensors: {self.backbone} into the backbone (all that it has), "
            f"{self.action_token} action token, {self.act_head} of the action head{more}"
        )


def listed(names: "list[str]") -> str:
    """Some names for an error."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more
