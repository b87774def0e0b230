"""Tokenizers, and the prompts of π0 and π0.5 made of them."""

from jax_bridge.policies.tokenizers.prompt import (
    PROMPT_LAYOUTS,
    SAID_FIRST,
    TokenizedPrompt,
    check_layout,
    discretise_state,
    tokenize_prompt,
)
from jax_bridge.policies.tokenizers.registry import TOKENIZERS, make_tokenizer
from jax_bridge.policies.tokenizers.tokenizer import Encoding, Tokenizer

__all__ = [
    "PROMPT_LAYOUTS",
    "SAID_FIRST",
    "TOKENIZERS",
    "Encoding",
    "TokenizedPrompt",
    "Tokenizer",
    "check_layout",
    "discretise_state",
    "make_tokenizer",
    "tokenize_prompt",
]
