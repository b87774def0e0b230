"""A polite end: SIGTERM or Ctrl-C lets the step finish and saves it."""

import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """Remembers that somebody asked to stop; a second time stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """What was sent."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._ask) for one in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt("the step was not saved")
        self.signal = signal.Signals(number)

    @property
    def name(self) -> str | None:
        """The signal's name; None if there was none."""
        return None if self.signal is None else self.signal.name

    def asked(self, *, agree: bool) -> bool:
        """Whether to stop after this step.

        Args:
            agree: ask the other processes, too: all must do so at the same step, since whoever
                saves alone waits for ever. Without other processes it does not matter.
        """
        if jax.process_count() == 1:
            return self.signal is not None
        if not agree:
            return False
        from jax.experimental import multihost_utils

        own = np.asarray(0 if self.signal is None else int(self.signal))
        everyone = np.asarray(multihost_utils.process_allgather(own))
        if everyone.any() and self.signal is None:
            self.signal = signal.Signals(int(everyone.max()))
        return bool(everyone.any())
