"""The prompts of π0 and π0.5, and which of their tokens are instruction and which are state.

Source: openpi, `src/openpi/models/tokenizer.py` (PaligemmaTokenizer).
Letters: l prompt length in tokens; s dimensions of the robot's state.
"""

import dataclasses
import logging

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from jax_bridge.policies.tokenizers.tokenizer import Tokenizer

BINS = 256
"""Into how many bins [-1, 1] is cut."""

PROMPT_LAYOUTS: tuple[str, ...] = ("ki", "openpi_fast")
"""`ki`: the prompt of π0 or π0.5, behind which codes begin at once. `openpi_fast`: that of openpi's
π0-FAST, lower-cased, behind which the model says `Action: ` itself."""
SAID_FIRST: dict[str, str] = {"ki": "", "openpi_fast": "Action: "}
"""What a model says before the codes, in each layout."""

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenizedPrompt:
    """A prompt as the model reads it, padded with id 0 on the right."""

    ids: Int32[np.ndarray, " l"]
    mask: Bool[np.ndarray, " l"]
    """Tokens that are not padding."""
    instruction_mask: Bool[np.ndarray, " l"]
    """Tokens that hold characters of the instruction."""
    state_mask: Bool[np.ndarray, " l"]
    """Tokens that hold characters of the discretised state, the spaces between included."""
    truncated: bool
    """Whether the prompt was too long and has lost its end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """A prompt as text: parts that are encoded one by one, and places in the first of them."""

    parts: tuple[str, ...]
    instruction: tuple[int, int]
    state: tuple[int, int] = (0, 0)


def clean_instruction(instruction: str) -> str:
    """The instruction as it stands in prompts: trimmed, one line, underscores as spaces."""
    return instruction.strip().replace("_", " ").replace("\n", " ")


def discretise_state(state: Float[np.ndarray, " s"]) -> Int64[np.ndarray, " s"]:
    """Bins of a normalised state: 0 … 255 for [-1, 1], 255 above, -1 below; nothing is clipped."""
    return np.digitize(state, bins=np.linspace(-1, 1, BINS + 1)[:-1]) - 1


def tokenize_prompt(
    tokenizer: Tokenizer,
    instruction: str,
    *,
    state: Float[np.ndarray, " s"] | None = None,
    max_length: int,
    prompt_layout: str = "ki",
) -> TokenizedPrompt:
    r"""A prompt in π0's layout, or with a state in π0.5's.

    π0: the instruction, then a line break encoded by itself. π0.5: one text, "Task:
    {instruction}, State: {bins};\nAction: ". Both begin with the begin mark and have no end
    mark. One that is too long is cut, with a warning. π0-FAST (`openpi_fast`, with a state): "Task:
    {instruction in lower case}, State: {bins};\n".

    Args:
        tokenizer: makes the ids.
        instruction: what the robot is told; cleaned here.
        state: normalised, not padded; None for π0's layout.
        max_length: length of the result, in tokens.
        prompt_layout: one of `PROMPT_LAYOUTS`.

    Raises:
        ValueError: if the layout is unknown, or needs a state and there is none.
    """
    layout = _layout(instruction, state, check_layout(prompt_layout))
    ids: list[int] = []
    in_instruction: list[bool] = []
    in_state: list[bool] = []
    for number, part in enumerate(layout.parts):
        encoding = tokenizer.encode(part, bos=number == 0)
        ids += encoding.ids
        for span in encoding.spans:
            in_instruction.append(number == 0 and _overlap(span, layout.instruction))
            in_state.append(number == 0 and _overlap(span, layout.state))
    if len(ids) > max_length:
        _logger.warning(
            "The prompt has %d tokens, of which the model reads the first %d: %r",
            len(ids),
            max_length,
            "".join(layout.parts),
        )
    return TokenizedPrompt(
        ids=_padded(ids, max_length, np.int32),
        mask=_padded([True] * len(ids), max_length, np.bool_),
        instruction_mask=_padded(in_instruction, max_length, np.bool_),
        state_mask=_padded(in_state, max_length, np.bool_),
        truncated=len(ids) > max_length,
    )


def check_layout(prompt_layout: str) -> str:
    """The layout, if it is one.

    Raises:
        ValueError: if it is not.
    """
    if prompt_layout not in PROMPT_LAYOUTS:
        raise ValueError(
            f"`prompt_layout` must be one of {', '.join(PROMPT_LAYOUTS)}, but got "
            f"{prompt_layout!r}."
        )
    return prompt_layout


def _layout(instruction: str, state: Float[np.ndarray, " s"] | None, name: str) -> _Layout:
    """Where the words and the state stand in the prompt."""
    words, end = clean_instruction(instruction), ";\nAction: "
    if name == "openpi_fast":
        # Line breaks stay, unlike in the other layout.
        words, end = instruction.lower().strip().replace("_", " "), ";\n"
        if state is None:
            raise ValueError(
                "`state` must be given for the prompt layout openpi_fast, but got None. Give the "
                "normalised state."
            )
    if state is None:
        return _Layout(parts=(words, "\n"), instruction=(0, len(words)))
    digits = " ".join(str(bin_) for bin_ in discretise_state(state))
    text, places = "", []
    for fixed, value in (("Task: ", words), (", State: ", digits)):
        text += fixed
        places.append((len(text), len(text) + len(value)))
        text += value
    return _Layout(parts=(text + end,), instruction=places[0], state=places[1])


def _overlap(span: tuple[int, int], place: tuple[int, int]) -> bool:
    """Whether two stretches of characters have one in common."""
    return max(span[0], place[0]) < min(span[1], place[1])


def _padded(values: list[int] | list[bool], length: int, dtype: type) -> np.ndarray:
    """Cut or filled with zeros to a length."""
    result = np.zeros(length, dtype)
    result[: min(len(values), length)] = values[:length]
    return result
