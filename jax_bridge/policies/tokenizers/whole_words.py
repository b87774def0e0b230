"""A tokenizer that needs no file: a token a word where it knows the word, else one a byte.

A small model that is trained from nothing sees few sentences. It learns what `red` means sooner
where that is one token, and 255 as one token rather than three; and its prompts are a third as
long. Words that are not in `WORDS` still arrive, in bytes.
"""

import re
from collections.abc import Iterable
from typing import Any, SupportsInt

from jax_bridge.policies.tokenizers.byte_level import BOS, EOS
from jax_bridge.policies.tokenizers.tokenizer import Encoding

WORDS: tuple[str, ...] = (
    "put", "pick", "up", "place", "move", "push", "pull", "open", "close", "turn", "stack",
    "the", "a", "it", "and", "in", "on", "into", "onto", "to", "of", "from", "next", "left",
    "right", "front", "back", "top", "bottom", "middle", "between", "where", "is", "what",
    "red", "green", "blue", "yellow", "white", "black", "orange", "purple", "brown", "grey",
    "cube", "ball", "cylinder", "block", "bowl", "plate", "box", "basket", "drawer", "cabinet",
    "mug", "cup", "bottle", "can", "tray", "stove", "Task", "State", "Action", "Answer",
    "yes", "no", "nothing", "there", "an", "hand",
    *(f"{axis}{cell:02d}" for axis in "xy" for cell in range(16)),
    "everything",
    *(f"{axis}{cell:02d}" for axis in "xy" for cell in range(16, 32)),
    *(
        f"{way}{stride}"
        for way in ("front", "back", "left", "right")
        for stride in (0, 1, 2, 3, 5, 8, 13, 21)
    ),
)  # fmt: skip
"""Words with a token of their own; new ones go to the end, so that old weights keep theirs."""
ROOM = 256
"""Ids that are kept for words."""
NUMBERS = range(-1, 256)
"""Bins of a state (`discretise_state`), each with a token of its own."""
FIRST_WORD = 3
FIRST_NUMBER = FIRST_WORD + ROOM
FIRST_BYTE = FIRST_NUMBER + len(NUMBERS)
_PIECE = re.compile(
    r" ?(?:[xy]\d\d(?!\d)|(?:front|back|left|right)\d+|[A-Za-z]+|-?\d+)|.", re.DOTALL
)
"""A place (`x07`), a way (`left13`), a word or a number, with its space; or one character."""
_IDS = {word: FIRST_WORD + place for place, word in enumerate(WORDS)} | {
    str(number): FIRST_NUMBER + place for place, number in enumerate(NUMBERS)
}
_TEXTS = {known: text for text, known in _IDS.items()}


class WordTokenizer:
    """Marks as PaliGemma's, then words, numbers and bytes.

    Two known words one after the other have a space between them, which needs no token; all other
    spaces are bytes.
    """

    def vocabulary_size(self) -> int:
        """All ids are below this."""
        return FIRST_BYTE + 256

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> Encoding:
        """Tokens of a text, between the begin and end marks if asked."""
        tokens: list[tuple[int, tuple[int, int]]] = [(BOS, (0, 0))] if bos else []
        after_word = False
        for found in _PIECE.finditer(text):
            piece, start = found.group(), found.start()
            known = _IDS.get(piece.removeprefix(" "))
            spaced = piece.startswith(" ")
            if known is None or (after_word and not spaced):
                tokens += _bytes(piece, start)
                after_word = False
                continue
            if spaced and not after_word:
                tokens += _bytes(" ", start)
                start += 1
            tokens.append((known, (start, found.end())))
            after_word = True
        tokens += [(EOS, (len(text), len(text)))] if eos else []
        return Encoding(tuple(i for i, _ in tokens), tuple(span for _, span in tokens))

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some tokens; a character that was cut in two becomes U+FFFD."""
        data, after_word = b"", False
        for i in map(int, ids):
            if i in _TEXTS:
                data += (b" " if after_word else b"") + _TEXTS[i].encode()
            elif 0 <= i - FIRST_BYTE < 256:
                data += bytes([i - FIRST_BYTE])
            after_word = i in _TEXTS
        return data.decode("utf-8", errors="replace")

    def describe(self) -> dict[str, Any]:
        """Its kind and its words."""
        return {"kind": "words", "words": len(WORDS)}


def _bytes(text: str, start: int) -> list[tuple[int, tuple[int, int]]]:
    """Each byte's token, with the place of its character."""
    return [
        (FIRST_BYTE + byte, (start + place, start + place + 1))
        for place, character in enumerate(text)
        for byte in character.encode("utf-8", errors="replace")
    ]
