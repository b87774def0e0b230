"""Vision-language data: a question about pictures, and the answer that the backbone learns to say.

A sample has pictures, the question as its `instruction`, and an `answer`; no robot acts in it. The
question stands in the prompt as PaliGemma was taught it: its words, then a line break.

Letters: n samples; u tokens of an answer.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int32, Int64

from jax_bridge.policies.conventions import Convention
from jax_bridge.policies.tokenizers import Tokenizer, tokenize_prompt
from jax_bridge.shards import ShardDataset
from jax_bridge.shards.sample_choice import cameras_of

QUESTION, ANSWER = "instruction", "answer"
"""Columns of the index."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TextIds:
    """How answers become targets."""

    tokenizer: Tokenizer
    size: int
    """Tokens of a target, padding included."""
    prompt_size: int
    """Tokens of a prompt, padding included."""

    def question_length(self, question: str) -> int:
        """Tokens of the prompt."""
        room = len(question.encode()) + 8  # no tokenizer makes more of it
        return int(tokenize_prompt(self.tokenizer, question, max_length=room).mask.sum())

    def answer_length(self, answer: str) -> int:
        """Tokens of the target, its end mark included."""
        return len(self._said(answer))

    def target(
        self, question: str, answer: str
    ) -> tuple[Int32[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
        """Ids and mask, padded; nothing to learn where question or answer do not fit."""
        ids, mask = self.nothing()
        said = self._said(answer)
        if len(said) <= self.size and self.question_length(question) <= self.prompt_size:
            ids[: len(said)], mask[: len(said)] = said, True
        return ids, mask

    def nothing(self) -> tuple[Int32[np.ndarray, " u"], Bool[np.ndarray, " u"]]:
        """The target of a sample that has no answer."""
        return np.zeros(self.size, np.int32), np.zeros(self.size, bool)

    def _said(self, answer: str) -> tuple[int, ...]:
        return self.tokenizer.encode(answer.strip(), eos=True).ids


def has_answers(dataset: ShardDataset) -> bool:
    """Whether samples of a data set have answers."""
    return ANSWER in dataset.metadata.column_names


def check_questions(dataset: ShardDataset, convention: Convention) -> None:
    """Looks whether every sample has words to read and to say, and pictures that are known.

    Raises:
        ValueError: naming what is missing.
    """
    cameras = cameras_of(dataset)
    unknown = set(cameras) - set(convention.cameras)
    if unknown or not cameras:
        raise ValueError(
            f"`data.paths` must hold questions about pictures of {', '.join(convention.cameras)} "
            f"(convention {convention.name}), but {dataset.path} has "
            f"{', '.join(sorted(unknown)) or 'none'}. Name its pictures like these."
        )
    for word, column in (("a question (`instruction`)", QUESTION), ("an `answer`", ANSWER)):
        texts, numbers = dataset.index.codes(column)
        there = [isinstance(text, str) and bool(text.strip()) for text in texts]
        rows = np.flatnonzero(~np.asarray([*there, False])[numbers])  # -1: there is none
        if len(rows):
            key = dataset.index.select(["key"]).take(rows[:1])["key"][0].as_py()
            raise ValueError(
                f"`data.paths` must hold {word} in words for each sample of vision-language data, "
                f"but {len(rows):,} of the {len(dataset):,} samples of {dataset.path} have none, "
                f"the first is {key}. Write it into their metadata."
            )


def check_text_lengths(dataset: ShardDataset, text: TextIds, overflow: str) -> None:
    """Compares all questions and answers with the room for them, before anything is trained.

    Raises:
        ValueError: if one does not fit and that is not to be left out; or if none fits.
    """
    asked = _lengths(dataset, QUESTION, text.question_length)
    told = _lengths(dataset, ANSWER, text.answer_length)
    for setting, what, lengths, size in (
        ("model.max_token_len", "questions", asked, text.prompt_size),
        ("data.max_text_len", "answers", told, text.size),
    ):
        too_long = int((lengths > size).sum())
        if too_long == len(lengths):
            raise ValueError(
                f"`{setting}` must hold some {what} of {dataset.path}, but got {size}; the "
                f"shortest needs {lengths.min()}."
            )
        if too_long and overflow == "raise":
            raise ValueError(
                f"`{setting}` must be at least {lengths.max()} for all {what} of {dataset.path}, "
                f"but got {size}: {too_long:,} of {len(lengths):,} samples are longer. Say "
                f"--{setting} {lengths.max()}, or --data.overflow leave_out."
            )


def _lengths(
    dataset: ShardDataset, column: str, length: Callable[[str], int]
) -> Int64[np.ndarray, " n"]:
    """Of each sample; each different text is cut into tokens once."""
    texts, numbers = dataset.index.codes(column)
    return np.asarray([length(text) for text in texts], np.int64)[numbers]
