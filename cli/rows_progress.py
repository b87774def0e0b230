"""The progress bar of commands that read a known number of samples."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def rows_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over samples with rate and time left; to be told how many more are done.

    Nothing is shown before the first, so that errors stand alone.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what), BarColumn(), MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True), TimeRemainingColumn(),
    )  # fmt: skip
    progress = Progress(*columns, transient=True, console=Console(stderr=True))
    task = progress.add_task(what, total=total)

    def advance(count: int) -> None:
        progress.start()
        progress.advance(task, count)

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()
