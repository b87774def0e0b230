"""What a language report is to look at."""

import dataclasses
from typing import Any, Literal

from datamodules.row_choice import RowChoice


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageOptions:
    """The settings of a report."""

    site: str = "hidden_states"
    vlm_region: str = "image_base"
    """The tokens that stand for expert vlm; text_only are the tokens of the prompt."""
    layer: int | list[int] | Literal["all"] = "all"
    flow_time: float | list[float] | Literal["all"] = "all"
    rows: RowChoice = dataclasses.field(default_factory=RowChoice)
    encoder: str = "tfidf"
    """Of the instructions: a built-in one, a folder, or a name on the hub."""
    most_steps: int = 40
    """Rollout steps; of more timesteps, the first sample in each of so many equal stretches."""
    fold_by: Literal["episode", "task"] = "episode"
    """What a probe has not seen of the samples that it reads; by task, their instruction too."""
    folds: int = 5
    draws: int = 500
    """Resamples of the bootstrap over episodes."""
    permutations: int = 1000
    memory: int = 2**30
    """What the latents of a block of episodes and the sums of the probes may take, in bytes."""
    seed: int = 0

    def __post_init__(self) -> None:
        for word, value, least in (
            ("most_steps", self.most_steps, 2),
            ("folds", self.folds, 2),
            ("draws", self.draws, 10),
            ("permutations", self.permutations, 10),
            ("memory", self.memory, 2**20),
        ):
            if value < least:
                raise ValueError(f"`{word}` must be at least {least}, but got {value}. Raise it.")

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return dataclasses.asdict(self)
