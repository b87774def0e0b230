"""Threads that take turns: one works at a time, until it passes the turn on.

So what a process has only once (its settings, the caches of its data) needs no locks, and who
comes next never depends on how quick anybody is.
"""

import threading


class Turns:
    """Whose turn it is.

    Args:
        members: how many threads take turns, by number; the first begins.
    """

    def __init__(self, members: int) -> None:
        self._changed = threading.Condition()
        self._working = set(range(members))
        self._met: set[int] = set()
        self._turn = 0

    def begin(self, member: int) -> None:
        """Waits for a member's first turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == member)

    def pass_on(self, member: int) -> None:
        """Lets every other member have a turn, and waits for the next one."""
        with self._changed:
            self._pass(member)
            self._changed.wait_for(lambda: self._turn == member)

    def meet(self, member: int) -> None:
        """Waits until all members that still work have come here, too."""
        with self._changed:
            self._met.add(member)
            self._pass(member)
            self._changed.wait_for(lambda: self._turn == member)

    def end(self, member: int) -> None:
        """Leaves the others alone, for good."""
        with self._changed:
            self._working.discard(member)
            self._pass(member)

    def _pass(self, member: int) -> None:
        if self._working <= self._met:
            self._met.clear()
        waiting = sorted(self._working - self._met)
        later = [other for other in waiting if other > member]
        self._turn = (later or waiting or [-1])[0]
        self._changed.notify_all()
