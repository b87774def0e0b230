"""PaliGemma's tokenizer: a sentencepiece model from a local file or an fsspec address."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, SupportsInt

import fsspec
import sentencepiece

from jax_bridge.policies.tokenizers.tokenizer import Encoding

PALIGEMMA_ADDRESS = "gs://big_vision/paligemma_tokenizer.model"
"""Where its authors publish it."""

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How sentencepiece writes a space inside a piece."""


class SentencePieceTokenizer:
    """A sentencepiece model; the file is read when it is first needed.

    Args:
        address: the `.model` file: a path, or any address that fsspec can open.
    """

    def __init__(self, address: str = PALIGEMMA_ADDRESS) -> None:
        self.address = address

    def vocabulary_size(self) -> int:
        """Number of its pieces."""
        return self._processor.vocab_size()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> Encoding:
        """Tokens of a text, between the begin and end marks if asked."""
        pieces, ids, spans = _encode_with_spans(self._processor, text)
        spans = _filled(pieces, spans)
        if bos:
            ids, spans = [self._processor.bos_id(), *ids], [(0, 0), *spans]
        if eos:
            ids, spans = [*ids, self._processor.eos_id()], [*spans, (len(text), len(text))]
        return Encoding(tuple(ids), tuple(spans))

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of some tokens; marks and padding give none."""
        kept = [int(i) for i in ids if not self._processor.is_control(int(i))]
        return self._processor.decode(kept)

    def describe(self) -> dict[str, Any]:
        """The digest of the file, wherever it lies."""
        digest = hashlib.sha256(self._model).hexdigest()
        return {"kind": "sentencepiece", "sha256": digest}

    @functools.cached_property
    def _model(self) -> bytes:
        try:
            with fsspec.open(self.address, "rb") as file:
                return file.read()  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:  # whatever a store's driver raises
            raise FileNotFoundError(
                f"`tokenizer` must be PaliGemma's sentencepiece model, but {self.address!r} could "
                f"not be read ({type(error).__name__}: {error}). Download {PALIGEMMA_ADDRESS} "
                "(also https://storage.googleapis.com/big_vision/paligemma_tokenizer.model) and "
                "give its path (--policy.tokenizer FILE), or install 'vla-lens[remote]' to read "
                "addresses; --policy.tokenizer bytes needs no file, for random weights."
            ) from error

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        model = self._model
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                f"`tokenizer` must be a sentencepiece model, but got {self.address!r}, which is "
                f"none ({len(model)} bytes). Download {PALIGEMMA_ADDRESS} anew."
            ) from error


def _encode_with_spans(
    processor: Any, text: str
) -> tuple[list[str], list[int], list[tuple[int, int]]]:
    """Pieces, ids and character spans; sentencepiece 0.2.2 renamed the call that tells them."""
    if hasattr(processor, "EncodeAsOffsetMapping"):
        found = processor.EncodeAsOffsetMapping(text)
        return found["pieces"], found["ids"], [(int(a), int(b)) for a, b in found["offsets"]]
    found = processor.EncodeAsImmutableProto(text).pieces
    return (
        [piece.piece for piece in found],
        [piece.id for piece in found],
        [(piece.begin, piece.end) for piece in found],
    )


def _filled(pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Gives every byte of a character the character's span; sentencepiece gives it the last one.

    A bare space keeps its empty span: it was put in front of the text, and stands for nothing.
    """
    filled = list(spans)
    for i in reversed(range(len(filled) - 1)):
        start, end = filled[i]
        if start == end and filled[i + 1][0] == start and pieces[i].strip(_SPACE):
            filled[i] = filled[i + 1]
    return filled
