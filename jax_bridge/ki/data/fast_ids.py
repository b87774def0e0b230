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
    start: tuple[int, ...] = ()
    """Ids that are said before the codes (`Action: ` in openpi's layout)."""

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, codes: int, *, rows: int, skip: int, size: int, start: str = ""
    ) -> "FastIds":
        """For a prompt tokenizer and an embedding table of so many rows.

        Args:
            tokenizer: of prompts.
            codes: of the FAST tokenizer.
            rows: of the embedding table.
            skip: ids at its end that are left alone.
            size: tokens of a target, padding included.
            start: what is said before the codes.

        Raises:
            ValueError: if the table is too small for both.
        """
        span = CodeRange(
            codes=codes, vocab_size=rows, skip=skip, prompt_ids=tokenizer.vocabulary_size()
        )
        end = tuple(tokenizer.encode("|", eos=True).ids)
        before = tuple(tokenizer.encode(start).ids) if start else ()
        return cls(codes=span, end=end, size=size, start=before)

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids behind which nothing is to be said: `|`, where it is one token, and the end mark."""
        return self.end if len(self.end) == 2 else self.end[-1:]

    def codes_of(self, said: Integer[np.ndarray, " f"]) -> Integer[np.ndarray, " c"] | None:
        """Codes of what was said up to `|`; None if it is not laid out as a target is."""
        before, last = len(self.start), self.end[: len(self.end) - 1]
        ids = said[:-1] if said[-1:].tolist() == [self.end[-1]] else said
        body = ids[before : len(ids) - len(last)]
        whole = [*self.start, *body.tolist(), *last] == ids.tolist()
        if not (whole and len(body) and self.codes.are_codes(body).all()):
            return None
        return self.codes.to_codes(body)

    @property
    def marks(self) -> int:
        """Tokens of a target that are no codes."""
        return len(self.start) + len(self.end)

    def fits(self, codes: int) -> bool:
        """Whether a target of so many codes fits."""
        return codes + self.marks <= self.size

    def target(
        self, codes: Integer[np.ndarray, " c"]
    ) -> tuple[Int32[np.ndarray, " f"], Bool[np.ndarray, " f"]]:
        """Ids and mask, padded; nothing to learn for a sample without codes or with too many."""
        ids, mask = np.zeros(self.size, np.int32), np.zeros(self.size, bool)
        if len(codes) and self.fits(len(codes)):
            own = self.codes.to_ids(np.asarray(codes, np.int64)).tolist()
            said = [*self.start, *own, *self.end]
            ids[: len(said)], mask[: len(said)] = said, True
        return ids, mask
