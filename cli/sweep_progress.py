"""The progress bar of a sweep."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

RATE_SECONDS = 3600.0
"""How far back the time left looks; a run may take minutes."""


class SweepProgress:
    """Runs done, runs a minute, failures, time left (at the end: taken)."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console or Console(stderr=True),
            speed_estimate_period=RATE_SECONDS,
            expand=True,
        )
        self._task = self._bar.add_task("runs", total=total, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, finished: int, failed: int) -> None:
        """Shows where the sweep stands."""
        elapsed = self._bar.tasks[0].elapsed or 0.0
        done = finished + failed
        note = f"{60 * done / elapsed:.3g}/min" if done and elapsed else ""
        note += f", {failed} failed" if failed else ""
        self._bar.update(self._task, completed=done, note=note)
