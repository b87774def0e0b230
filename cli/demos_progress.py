"""The progress bar over recorded episodes."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from jax_bridge.demos.conversion import ConversionReport
    from jax_bridge.encoding import EncodeReport


class DemosProgress:
    """Episodes done, samples a second, time left."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("episodes"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True),
            console=console or Console(stderr=True), transient=True,
        )  # fmt: skip
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

    def update(self, report: "ConversionReport | EncodeReport") -> None:
        """Shows where the run stands."""
        elapsed = self._bar.tasks[self._task].elapsed or 0.0
        note = f"{report.samples} samples, {report.samples / elapsed:.3g}/s" if elapsed else ""
        done = report.skipped + report.episodes + len(report.errors)
        self._bar.update(self._task, completed=done, note=note)
