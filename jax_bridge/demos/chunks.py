"""The actions that follow each frame, as chunks of one length.

Letters: t steps of an episode; h horizon; a action dimensions.
"""

import collections
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float32

Frame = TypeVar("Frame")
Chunk = Float32[np.ndarray, "h a"]
Padding = Bool[np.ndarray, " h"]


def check_horizon(horizon: int) -> None:
    """Refuses chunks without actions.

    Raises:
        ValueError: if the horizon is not positive.
    """
    if horizon < 1:
        raise ValueError(f"`horizon` must be positive, but got {horizon}.")


def action_chunk(
    actions: Float32[np.ndarray, "t a"], step: int, horizon: int
) -> tuple[Float32[np.ndarray, "{horizon} a"], Bool[np.ndarray, "{horizon}"]]:
    """The actions from one step on; the last one is repeated behind the end.

    Returns:
        The chunk, and which of its actions lie behind the end.
    """
    places = step + np.arange(horizon)
    return actions[np.minimum(places, len(actions) - 1)], places >= len(actions)


class ChunkQueue(Generic[Frame]):
    """Holds frames back until the actions that follow them are known; at most `horizon` of them."""

    def __init__(self, horizon: int, emit: Callable[[Frame, Chunk, Padding], None]) -> None:
        """Makes an empty queue.

        Args:
            horizon: actions a chunk.
            emit: takes each frame with its chunk and its padding, in order.
        """
        check_horizon(horizon)
        self._horizon = horizon
        self._emit = emit
        self._waiting: collections.deque[tuple[Frame | None, Float32[np.ndarray, " a"]]]
        self._waiting = collections.deque()

    def push(self, frame: Frame | None, action: Float32[np.ndarray, " a"]) -> None:
        """Takes the next step: its frame, if it is kept, and its action."""
        self._waiting.append((frame, action))
        if len(self._waiting) == self._horizon:
            self._pop()

    def finish(self) -> None:
        """The episode is over: emits what is left."""
        while self._waiting:
            self._pop()

    def _pop(self) -> None:
        actions = np.stack([action for _, action in self._waiting])
        frame, _ = self._waiting.popleft()
        if frame is not None:
            self._emit(frame, *action_chunk(actions, 0, self._horizon))
