"""The progress bar of a collection."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from jax_bridge.rollouts.collect import CollectReport


RATE_SECONDS = 3600.0
"""How far back the time left looks; one episode of a slow simulator takes minutes."""


class EpisodeProgress:
    """Episodes done, samples a second, success so far, time left (at the end: taken)."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("episodes"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console or Console(stderr=True),
            speed_estimate_period=RATE_SECONDS,
            expand=True,
        )
        self._task = self._bar.add_task("episodes", total=total, note="", start=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def update(self, report: "CollectReport") -> None:
        """Shows where the run stands; nothing is shown before, so that errors stand alone."""
        self._bar.start()
        self._bar.start_task(self._task)
        elapsed = self._bar.tasks[self._task].elapsed or 0.0
        rate = report.samples / elapsed if elapsed else 0.0
        note = f"{report.samples} samples, {rate:.3g}/s, {report.successes} solved"
        if report.errors:
            note += f", {len(report.errors)} errors"
        if report.waiting:
            note += f", {report.waiting} shards to upload"
        done = report.skipped + report.episodes + len(report.errors)
        self._bar.update(self._task, completed=done, note=note)
