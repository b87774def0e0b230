"""The progress bar of commands that read a known number of samples."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def rows_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over samples with rate and time left; to be told how many more are done."""
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
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
