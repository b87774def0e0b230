"""`FastTokenizer`: action chunks to codes and back, strictly.

Letters: n chunks; t steps of a chunk; d action dimensions; c coefficients (t * d).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from tokenizers import Tokenizer

from jax_bridge.fast.coefficients import from_coefficients, rounding_bound, to_coefficients
from jax_bridge.fast.failures import (
    BrokenTextError,
    CoefficientRangeError,
    FastDecodeError,
    RangeError,
    UnknownCodeError,
    WrongLengthError,
)

LARGEST_ACTION = 5.0
"""|action|, in quantile-normalised units, beyond which decoded chunks are taken for nonsense."""
MOST_CHARACTERS = 0xD800
"""Coefficients above this would be surrogates, which are no characters."""
REPLACEMENT = "\ufffd"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastSettings:
    """What `processor_config.json` says besides the BPE."""

    scale: float = 10.0
    """Coefficients a unit of the normalised action."""
    min_token: int = -354
    """The coefficient that is character 0."""
    vocab_size: int = 2048
    """Codes."""
    time_horizon: int | None = None
    """Steps of the chunks it was learnt from, where known."""
    action_dim: int | None = None
    """Dimensions of these, where known."""
    largest_action: float = LARGEST_ACTION
    """Limit of |action| when decoding, in normalised units."""

    def __post_init__(self) -> None:
        for name in ("scale", "vocab_size", "largest_action"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class EncodedChunks:
    """Codes of some chunks."""

    codes: list[Int64[np.ndarray, "_"]]
    """Of each chunk."""
    clipped: Int64[np.ndarray, " n"]
    """How many coefficients of each chunk lay outside the tokenizer's range and were clipped."""


@dataclasses.dataclass(frozen=True)
class DecodedChunks:
    """Chunks of some codes."""

    actions: Float[np.ndarray, "n t d"]
    """Normalised; zeros where the codes stand for no chunk."""
    errors: list[FastDecodeError | None]
    """What was wrong with the codes of each chunk."""

    @property
    def failed(self) -> int:
        """How many are zeros for that reason."""
        return sum(error is not None for error in self.errors)


class FastTokenizer:
    """A BPE over characters that stand for DCT coefficients; keeps no state between calls."""

    def __init__(self, bpe: Tokenizer, settings: FastSettings) -> None:
        """Takes a trained BPE.

        Raises:
            ValueError: if the BPE has more codes than the settings say.
        """
        if bpe.get_vocab_size() > settings.vocab_size:
            raise ValueError(
                f"`vocab_size` must be at least the BPE's {bpe.get_vocab_size()} codes, but got "
                f"{settings.vocab_size}. The two files are not of one tokenizer."
            )
        self._bpe = bpe
        self.settings = settings

    @property
    def codes(self) -> int:
        """All codes are below this."""
        return self._bpe.get_vocab_size()

    @functools.cached_property
    def range(self) -> tuple[int, int]:
        """Lowest and highest coefficient that it stands for without a gap between them."""
        known = self._known
        if not known[0]:
            return 0, -1
        last = int(np.argmin(known)) if not known.all() else len(known)
        return self.settings.min_token, self.settings.min_token + last - 1

    @functools.cached_property
    def _known(self) -> Bool[np.ndarray, " characters"]:
        """Which characters consist of bytes that the BPE has; the others would vanish silently."""
        vocabulary = self._bpe.get_vocab()
        before = self._bpe.pre_tokenizer
        known = np.zeros(min(MOST_CHARACTERS, 4 * max(-self.settings.min_token, 1024)), np.bool_)
        for i in range(len(known)):
            pieces = before.pre_tokenize_str(chr(i)) if before is not None else [(chr(i), (0, 1))]
            known[i] = all(letter in vocabulary for piece, _ in pieces for letter in piece)
        return known

    def encode(
        self,
        actions: Float[np.ndarray, "n t d"],
        *,
        out_of_range: Literal["raise", "clip"] = "raise",
    ) -> EncodedChunks:
        """Codes of normalised, unpadded action chunks.

        Raises:
            ValueError: if the shape is wrong or an action is not finite.
            CoefficientRangeError: if a coefficient lies outside the range and is not clipped.
        """
        self._check_chunks(actions)
        coefficients = to_coefficients(actions, self.settings.scale)
        low, high = self.range
        outside = (coefficients < low) | (coefficients > high)
        if outside.any() and out_of_range == "raise":
            chunk, place = (int(x[0]) for x in np.nonzero(outside))
            raise CoefficientRangeError(
                f"`actions` must have DCT coefficients in [{low}, {high}], but got "
                f"{coefficients[chunk, place]} in dimension {place % actions.shape[2]} of chunk "
                f"{chunk}. Check the normalisation statistics, learn a tokenizer from these data "
                "(`vla-lens fast fit`), or clip and count."
            )
        characters = np.clip(coefficients, low, high) - self.settings.min_token
        encoded = self._bpe.encode_batch(_texts(characters), add_special_tokens=False)
        return EncodedChunks([np.asarray(e.ids, np.int64) for e in encoded], outside.sum(1))

    def decode(
        self,
        codes: Sequence[Int[np.ndarray, "_"] | Sequence[int]],
        *,
        steps: int,
        dims: int,
        on_error: Literal["raise", "zeros"] = "raise",
    ) -> DecodedChunks:
        """Normalised chunks of some codes.

        Args:
            codes: of each chunk.
            steps: of a chunk.
            dims: action dimensions.
            on_error: `zeros` gives zeros for codes that stand for no chunk, and says why.

        Raises:
            FastDecodeError: naming what is wrong.
        """
        actions = np.zeros((len(codes), steps, dims))
        errors: list[FastDecodeError | None] = []
        for i, some in enumerate(codes):
            try:
                actions[i] = self._decode_one(np.asarray(some, np.int64), steps, dims)
                errors.append(None)
            except FastDecodeError as error:
                if on_error == "raise":
                    raise
                errors.append(error)
        return DecodedChunks(actions, errors)

    def describe(self) -> dict[str, Any]:
        """Digest and settings, JSON-able: enters a data set's description."""
        digest = hashlib.sha256(self._bpe.to_str().encode()).hexdigest()
        return {"kind": "fast", "sha256": digest, **dataclasses.asdict(self.settings)}

    def to_str(self) -> str:
        """The BPE as `tokenizer.json` holds it."""
        return self._bpe.to_str(pretty=True)

    def _decode_one(
        self, codes: Int64[np.ndarray, "_"], steps: int, dims: int
    ) -> Float[np.ndarray, "t d"]:
        unknown = [int(code) for code in codes if not 0 <= code < self.codes]
        if unknown:
            raise UnknownCodeError(f"code {unknown[0]} is not one of the {self.codes}.")
        text = self._bpe.decode(codes.tolist(), skip_special_tokens=False)
        if REPLACEMENT in text:
            raise BrokenTextError("the codes end in the middle of a character.")
        if len(text) != steps * dims:
            raise WrongLengthError(
                f"the codes hold {len(text)} coefficients, but {steps} steps of {dims} dimensions "
                f"have {steps * dims}."
            )
        coefficients = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
        coefficients = coefficients + self.settings.min_token
        low, high = self.range
        if ((coefficients < low) | (coefficients > high)).any():
            raise RangeError(f"a coefficient lies outside [{low}, {high}].")
        scale = self.settings.scale
        chunk = from_coefficients(coefficients[None], scale, steps=steps, dims=dims)[0]
        largest = float(np.abs(chunk).max(initial=0.0))
        if largest > self.settings.largest_action + rounding_bound(steps, scale):
            raise RangeError(
                f"an action of {largest:.3g} is larger than {self.settings.largest_action:g}."
            )
        return chunk

    def _check_chunks(self, actions: np.ndarray) -> None:
        if actions.ndim != 3 or not all(actions.shape[1:]):
            raise ValueError(
                f"`actions` must be [chunks, steps, dimensions], but got {list(actions.shape)}."
            )
        finite = np.isfinite(actions).all(axis=(1, 2))
        if not finite.all():
            raise ValueError(
                f"`actions` must be finite, but got NaN or infinity in chunk "
                f"{int(np.argmin(finite))}. Leave it out."
            )


def _texts(characters: Int64[np.ndarray, "n c"]) -> list[str]:
    """Each row's numbers as one string of characters."""
    whole = characters.astype("<u4").tobytes().decode("utf-32-le")
    size = characters.shape[1]
    return [whole[i * size : (i + 1) * size] for i in range(len(characters))]
