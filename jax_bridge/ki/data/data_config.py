"""Which data a policy is trained on, and how it is prepared."""

import dataclasses
from typing import Literal

from jax_bridge.fast.vocabulary import OPENPI_SKIP


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """How prompts are laid out, and where FAST codes lie in the embedding table."""

    prompt: Literal["ki", "openpi_fast"] = "ki"
    """`ki`: codes follow the prompt of π0 or π0.5 at once. `openpi_fast`: the prompt of openpi's
    π0-FAST, and `Action: ` is learnt before the codes."""
    state_in_prompt: bool | None = None
    """Whether π0.5 reads the state as digits in its prompt; None: π0.5 does."""
    skip: int = OPENPI_SKIP
    """Ids at the end of the embedding table that FAST leaves alone."""

    def __post_init__(self) -> None:
        if self.skip < 0:
            raise ValueError(f"`skip` must be at least 0, but got {self.skip}.")
        if self.prompt == "openpi_fast" and self.state_in_prompt is False:
            raise ValueError(
                "`state_in_prompt` must be left out for the prompt layout openpi_fast, which holds "
                "the state, but got False."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Demonstrations with FAST targets beside them, and questions with answers (docs/demos.md)."""

    paths: str | list[str] = dataclasses.field(default_factory=list)
    """Data sets of the mixture, or the only one."""
    weights: list[float] | None = None
    """Share of each data set in a batch; None: by their numbers of samples."""
    convention: str = "libero"
    """Layout of the robot's observations and actions, by name or dotted path."""
    tokenizer: str | None = None
    """Of prompts: bytes, paligemma, or a sentencepiece model. None: as the table's size allows."""
    norm_stats: str | None = None
    """A norm_stats.json; None: the one of the FAST targets, or of the first data set."""
    layout: TokenLayout = dataclasses.field(default_factory=TokenLayout)
    """Of prompts and of the embedding table."""
    max_fast_len: int = 128
    """Most FAST tokens of a sample, `|` and the end mark (and `Action: `) included."""
    max_text_len: int = 32
    """Most tokens of an answer, its end mark included."""
    overflow: Literal["raise", "leave_out"] = "raise"
    """What to do with longer ones: stop, or leave the sample's targets out and count it."""
    held_out: float = 0.02
    """Share of the episodes that is not trained on, but looked at."""
    threads: int = 4
    """That read and decode, in each worker."""
    workers: int = 0
    """Processes that read; 0: threads of this one do."""

    def __post_init__(self) -> None:
        least = {"max_fast_len": 3, "max_text_len": 2, "threads": 1, "workers": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"`{name}` must be at least {smallest}, but got {getattr(self, name)}."
                )
        if not 0 <= self.held_out < 1:
            raise ValueError(f"`held_out` must lie in [0, 1), but got {self.held_out}.")
        sizes = (len(self.datasets), len(self.weights or self.datasets))
        if sizes[0] != sizes[1] or any(weight <= 0 for weight in self.weights or ()):
            raise ValueError(
                f"`weights` must be a positive number for each of the {sizes[0]} data sets, but "
                f"got {self.weights}."
            )

    @property
    def datasets(self) -> list[str]:
        """The data sets, always as a list."""
        return [self.paths] if isinstance(self.paths, str) else list(self.paths)
