"""Learning a FAST tokenizer from action chunks.

Letters: n chunks; t steps of a chunk; d action dimensions.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from jax_bridge.fast.coefficients import rounding_bound, to_coefficients
from jax_bridge.fast.tokenizer import MOST_CHARACTERS, FastSettings, FastTokenizer

MARGIN = 0.25
"""The range is made wider at either end by this share of itself, for chunks not seen yet."""
LONGEST_CODE = 10_000
"""Characters that one code may stand for."""


def learn_tokenizer(
    chunks: Float[np.ndarray, "n t d"],
    *,
    scale: float = 10.0,
    vocab_size: int = 2048,
    margin: float = MARGIN,
) -> FastTokenizer:
    """Learns a byte-level BPE from normalised, unpadded chunks.

    Args:
        chunks: at least one.
        scale: coefficients a unit of action; more is finer, and longer.
        vocab_size: most codes.
        margin: see `MARGIN`.

    Raises:
        ValueError: if there are no chunks, their range is too wide, or `vocab_size` is too small.
    """
    if chunks.ndim != 3 or not chunks.size or not np.isfinite(chunks).all():
        raise ValueError(
            "`chunks` must be finite and [chunks, steps, dimensions] with at least one, but got "
            f"{list(chunks.shape)}."
        )
    coefficients = to_coefficients(chunks, scale)
    low, high = int(coefficients.min()), int(coefficients.max())
    more = int(np.ceil(margin * (high - low))) + 1
    low, high = low - more, high + more
    if high - low >= MOST_CHARACTERS:
        raise ValueError(
            f"`chunks` must have fewer than {MOST_CHARACTERS} different DCT coefficients at scale "
            f"{scale:g}, but they reach from {low} to {high}. Normalise the actions by quantiles."
        )
    bpe = _untrained()
    alphabet = _alphabet(bpe, high - low + 1)
    if len(alphabet) > vocab_size:
        raise ValueError(
            f"`vocab_size` must be at least {len(alphabet)}, the bytes of the range [{low}, "
            f"{high}], but got {vocab_size}."
        )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, show_progress=False, special_tokens=[],
        initial_alphabet=alphabet, max_token_length=LONGEST_CODE,
    )  # fmt: skip
    bpe.train_from_iterator(_texts(coefficients - low), trainer, length=len(chunks))
    largest = float(np.abs(chunks).max()) * (1 + margin)
    settings = FastSettings(
        scale=scale, min_token=low, vocab_size=vocab_size, time_horizon=chunks.shape[1],
        action_dim=chunks.shape[2], largest_action=largest + rounding_bound(chunks.shape[1], scale),
    )  # fmt: skip
    return FastTokenizer(bpe, settings)


def _untrained() -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _alphabet(bpe: Tokenizer, characters: int) -> list[str]:
    """The letters that stand for the bytes of the first characters."""
    assert bpe.pre_tokenizer is not None
    letters: set[str] = set()
    for i in range(characters):
        for piece, _ in bpe.pre_tokenizer.pre_tokenize_str(chr(i)):
            letters.update(piece)
    return sorted(letters)


def _texts(characters: Int64[np.ndarray, "n c"]) -> Iterator[str]:
    for row in characters:
        yield row.astype("<u4").tobytes().decode("utf-32-le")
