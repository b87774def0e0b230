"""Which group comes next, and what becomes of one whose worker died."""

import collections
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from lightning_modules.sweep.folder import SweepFolder
from lightning_modules.sweep.plan import Group

UNSEEN = (
    "it ended without a result that can be seen here; the sweep's folder must lie where all "
    "machines can write"
)


class Schedule:
    """The groups that wait; used by several threads."""

    def __init__(self, folder: SweepFolder, groups: Sequence[Group]) -> None:
        self.folder = folder
        self._waiting = collections.deque(groups)
        self._lock = threading.Lock()
        self._stopped = False

    def take(self) -> Group | None:
        """The next group; None if nothing waits."""
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self._stopped else None

    def settle(self, group: Group, reason: str | None = None) -> None:
        """Notes that a worker is through with a group, or died in it.

        The run in which it died is the first without a result: it failed, and the runs behind it
        wait again. Where several runs read together it could have been any of them: each waits
        again, alone, and the one in which a worker dies then has failed.

        Args:
            group: as it was taken.
            reason: why the worker died; None if it did not.
        """
        with self._lock:
            if self._stopped:
                return
            rest = [run for run in group if not self.folder.settled(run.name)]
            begun = [run for run in rest if self.folder.begun(run.name)]
            if reason and len(begun) > 1:
                self._waiting.extend((run,) for run in begun)
                rest = [run for run in rest if run not in begun]
            elif rest:
                self.folder.write_failure(rest[0].name, reason or UNSEEN)
                rest = rest[1:]
            if rest:
                self._waiting.append(tuple(rest))

    def stop(self) -> None:
        """Gives no more groups out, and takes no more notes: the sweep was interrupted."""
        with self._lock:
            self._stopped = True


class Engine(Protocol):
    """Who runs the groups."""

    workers: int
    """Groups that are worked on at once."""

    def run(self, schedule: Schedule, watch: Callable[[], None]) -> None:
        """Runs all groups; calls `watch` from time to time."""
        ...
