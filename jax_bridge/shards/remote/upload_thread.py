"""One thread that uploads while others collect, and keeps its failure until somebody asks."""

import threading
from collections.abc import Callable

TICK = 0.2
"""Seconds between two looks while waiting, so that Ctrl-C and a progress bar get their turn."""


class UploadThread:
    """Runs a piece of work each time it is poked, never twice at once.

    Args:
        work: what to do; an exception ends the thread.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._poked = self._busy = self._ended = False
        self._failure: BaseException | None = None
        # A daemon: who presses Ctrl-C twice does not wait for an upload.
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> BaseException | None:
        """What ended the work."""
        return self._failure

    @property
    def idle(self) -> bool:
        """Whether all that it was poked for is done, or has failed."""
        with self._changed:
            return self._failure is not None or not (self._poked or self._busy)

    def poke(self) -> None:
        """Asks for the work to be done, from the beginning, after what is being done now."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def wait(self, enough: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        """Returns when there is enough of something, or the work has failed."""
        while self._failure is None and not enough():
            meanwhile()
            with self._changed:
                self._changed.wait(TICK)

    def end(self) -> None:
        """Lets the thread end after the work at hand; does not wait for it."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._poked or self._ended)
                if self._ended:
                    return
                self._poked, self._busy = False, True
            try:
                self._work()
            except BaseException as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
