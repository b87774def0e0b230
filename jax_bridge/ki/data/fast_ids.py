"""FAST codes as what the backbone learns to say: ids of its table, `|`, and the end mark.

Letters: f tokens of a target.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int32, Integer

from jax_bridge.fast.vocabulary import CodeRange
from jax_bridge.policies.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FastIds:
    """How codes become targets, and ids become codes."""

    codes: CodeRange
    end: tuple[int, ...]
    """Ids of `|` and the end mark."""
    size: int
    """Tokens of a target, padding included."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, codes: int, *, rows: int, skip: int, size: int) -> "FastIds":
        """For a prompt tokenizer and an embedding table of so many rows.

        Raises:
            ValueError: if the table is too small for both.
        """
        span = CodeRange(
            codes=codes, vocab_size=rows, skip=skip, prompt_ids=tokenizer.vocabulary_size()
        )
        return cls(codes=span, end=tuple(tokenizer.encode("|", eos=True).ids), size=size)

    def fits(self, codes: int) -> bool:
        """Whether a target of so many codes fits."""
        return codes + len(self.end) <= self.size

    def target(
        self, codes: Integer[np.ndarray, " c"]
    ) -> tuple[Int32[np.ndarray, " f"], Bool[np.ndarray, " f"]]:
        """Ids and mask, padded; nothing to learn for a sample without codes or with too many."""
        ids, mask = np.zeros(self.size, np.int32), np.zeros(self.size, bool)
        if len(codes) and self.fits(len(codes)):
            said = [*self.codes.to_ids(np.asarray(codes, np.int64)).tolist(), *self.end]
            ids[: len(said)], mask[: len(said)] = said, True
        return ids, mask
