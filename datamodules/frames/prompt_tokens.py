"""Prompts as tokens, by the tokenizer of the user's model."""

import hashlib
from collections.abc import Sequence
from typing import Any

MOST_TOKENS = 512
"""Longest prompt, as RoboVLMs cuts it."""
WHERE = (
    "Give a folder that holds its files (tokenizer.json, tokenizer_config.json, ...), or a hub "
    "address such as microsoft/kosmos-2-patch14-224."
)


class PromptTokens:
    """Turns prompts into tokens: begin, words, end; no padding.

    Args:
        address: a local folder, or an address on the hub.

    Raises:
        FileNotFoundError: if there is no tokenizer, or the hub cannot be reached.
        ImportError: if transformers is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._tokenizer: Any = _load(address)
        self._known: dict[str, tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self._tokenizer)

    @property
    def digest(self) -> str:
        """Of the vocabulary: equal digests give equal tokens."""
        words = sorted(self._tokenizer.get_vocab().items())
        return hashlib.sha256(repr(words).encode()).hexdigest()

    def __call__(self, prompt: str) -> tuple[int, ...]:
        """The tokens of a prompt, `<s>` first and `</s>` last."""
        if prompt not in self._known:
            self._known[prompt] = self._encode(prompt)
        return self._known[prompt]

    def _encode(self, prompt: str) -> tuple[int, ...]:
        tokenizer = self._tokenizer
        ids: Sequence[int] = tokenizer(prompt, truncation=True, max_length=MOST_TOKENS)["input_ids"]
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        if begin is None or end is None:
            raise ValueError(
                f"`tokenizer` must have tokens for begin and end, but {self.address} has not. "
                f"{WHERE}"
            )
        ids = list(ids) if ids and ids[0] == begin else [begin, *ids]
        return tuple(ids if ids[-1] == end else [*ids, end])


def _load(address: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            "`tokenizer` needs transformers. Install it with `pip install 'vla-lens[context]'`."
        ) from error
    try:
        return AutoTokenizer.from_pretrained(address)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileNotFoundError(
            f"`tokenizer` must be one that can be loaded, but {address!r} cannot ({reason}). "
            f"{WHERE}"
        ) from None
