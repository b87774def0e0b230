"""Where FAST codes stand in the language model's embedding table.

Source: openpi, `src/openpi/models/tokenizer.py` (FASTTokenizer); π0-FAST skips the last 128 ids.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

OPENPI_SKIP = 128
"""Ids at the end of PaliGemma's table that openpi leaves alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeRange:
    """Code c is id `vocab_size - 1 - skip - c`."""

    codes: int
    """Codes of the tokenizer."""
    vocab_size: int = 257152
    """Rows of the embedding table."""
    skip: int = OPENPI_SKIP
    """Ids at the end of the table that are left alone."""
    prompt_ids: int = 0
    """Ids below this belong to prompts."""

    def __post_init__(self) -> None:
        if self.codes < 1 or self.skip < 0:
            raise ValueError(
                f"`codes` must be positive and `skip` not negative, but got {self.codes} and "
                f"{self.skip}."
            )
        if self.first < self.prompt_ids:
            raise ValueError(
                f"`vocab_size` must hold {self.prompt_ids} ids of prompts, {self.codes} FAST codes "
                f"and {self.skip} skipped ids, but got {self.vocab_size}. Learn a tokenizer of at "
                f"most {max(self.vocab_size - self.skip - self.prompt_ids, 0)} codes "
                "(`vla-lens fast fit --vocab_size`), or skip fewer."
            )

    @property
    def first(self) -> int:
        """The lowest id of a code."""
        return self.vocab_size - self.skip - self.codes

    def to_ids(self, codes: Int[np.ndarray, "*b"]) -> Int[np.ndarray, "*b"]:
        """Ids in the embedding table; its own inverse but for the check.

        Raises:
            ValueError: if a code is out of range.
        """
        if codes.size and not (codes.min() >= 0 and codes.max() < self.codes):
            raise ValueError(
                f"`codes` must lie in [0, {self.codes}), but got {codes.min()} to {codes.max()}."
            )
        return self.vocab_size - 1 - self.skip - codes

    def are_codes(self, ids: Int[np.ndarray, "*b"]) -> Bool[np.ndarray, "*b"]:
        """Which ids stand for codes."""
        return (ids >= self.first) & (ids < self.first + self.codes)

    def to_codes(self, ids: Int[np.ndarray, "*b"]) -> Int[np.ndarray, "*b"]:
        """Codes of ids.

        Raises:
            ValueError: if an id stands for no code.
        """
        if not self.are_codes(ids).all():
            bad = ids[~self.are_codes(ids)].reshape(-1)[0]
            raise ValueError(
                f"`ids` must lie in [{self.first}, {self.first + self.codes}), but got {bad}."
            )
        return self.vocab_size - 1 - self.skip - ids
