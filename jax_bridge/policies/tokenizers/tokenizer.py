"""What a tokenizer must offer: ids, and the place in the text that each one came from."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, SupportsInt, runtime_checkable


class Encoding(NamedTuple):
    """A text as tokens."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Per token, the characters [start, end) of the text that it stands for; empty (start ==
    end) for a token without text of its own. Tokens that share one character, such as the
    bytes of `é`, all have its span."""


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids of the embedding table, and back."""

    def vocabulary_size(self) -> int:
        """All ids are below this: rows that the embedding table must have."""
        ...

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> Encoding:
        """Tokens of a text, between the begin and end marks if asked."""
        ...

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some tokens; marks and padding give none."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, JSON-able and the same on every machine: enters the fingerprint."""
        ...
