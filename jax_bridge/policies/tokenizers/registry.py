"""The tokenizers by name; a new one is one file and one line here."""

from collections.abc import Callable

from jax_bridge.policies.tokenizers.byte_level import ByteTokenizer
from jax_bridge.policies.tokenizers.paligemma import SentencePieceTokenizer
from jax_bridge.policies.tokenizers.tokenizer import Tokenizer
from jax_bridge.policies.tokenizers.whole_words import WordTokenizer

TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": ByteTokenizer,
    "paligemma": SentencePieceTokenizer,
    "words": WordTokenizer,
}


def make_tokenizer(name: str) -> Tokenizer:
    """A tokenizer by its name, or a sentencepiece model by its path or address."""
    if name in TOKENIZERS:
        return TOKENIZERS[name]()
    return SentencePieceTokenizer(name)
