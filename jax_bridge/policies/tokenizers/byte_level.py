"""A tokenizer that needs no file: one token a byte of utf-8, for models with random weights."""

from collections.abc import Iterable
from typing import Any, SupportsInt

from jax_bridge.policies.tokenizers.tokenizer import Encoding

PAD, EOS, BOS = 0, 1, 2
"""PaliGemma's marks."""
FIRST_BYTE = 1000
"""Id of byte 0: clear of the marks, and small enough for a table of 2048 rows."""


class ByteTokenizer:
    """Byte b of the utf-8 text is token 1000 + b; marks as PaliGemma's."""

    def vocabulary_size(self) -> int:
        """All ids are below this."""
        return FIRST_BYTE + 256

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> Encoding:
        """Tokens of a text, between the begin and end marks if asked."""
        ids, spans = [BOS] * bos, [(0, 0)] * bos
        for position, character in enumerate(text):
            data = character.encode("utf-8", errors="replace")
            ids += [FIRST_BYTE + byte for byte in data]
            spans += [(position, position + 1)] * len(data)
        ids, spans = ids + [EOS] * eos, spans + [(len(text), len(text))] * eos
        return Encoding(tuple(ids), tuple(spans))

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some tokens; a character that was cut in two becomes U+FFFD."""
        data = bytes(i - FIRST_BYTE for i in map(int, ids) if 0 <= i - FIRST_BYTE < 256)
        return data.decode("utf-8", errors="replace")

    def describe(self) -> dict[str, Any]:
        """Its kind is all there is to say."""
        return {"kind": "bytes"}
