"""What an environment that can be asked about must offer."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class Question(NamedTuple):
    """A question about what is seen, and its answer."""

    kind: str
    """What is asked for, in one word."""
    words: str
    answer: str


@runtime_checkable
class Questioner(Protocol):
    """Asks about the pictures of one simulator, from what it told of itself."""

    def ask(self, truth: Mapping[str, Any], random: np.random.Generator) -> Question:
        """A question about one frame.

        Args:
            truth: what `Environment.truth` told when the frame was taken.
            random: draws kind and things.
        """
        ...


@runtime_checkable
class Scattered(Protocol):
    """An environment that shows scenes for their own sake, not to act in them."""

    def scatter(self, *, episode: int, seed: int) -> None:
        """Shows a moment, a pure function of the arguments; `observe` and `truth` tell of it."""
        ...
