"""The progress bar of a collection."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from jax_bridge.rollouts.collect import CollectReport


class EpisodeProgress:
    """Episodes done, samples a second, success so far, time left."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            TextColumn("episodes"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("episodes", total=total, note="")

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

    def update(self, report: "CollectReport") -> None:
        """Shows where the run stands."""
        elapsed = self._bar.tasks[self._task].elapsed or 0.0
        rate = report.samples / elapsed if elapsed else 0.0
        note = f"{report.samples} samples ({rate:.1f}/s), {report.successes} successes"
        if report.errors:
            note += f", {len(report.errors)} errors"
        done = report.skipped + report.episodes + len(report.errors)
        self._bar.update(self._task, completed=done, note=note)
