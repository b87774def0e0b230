"""A bar of bytes on the terminal; nothing where standard error is none."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def byte_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows rate and time left while something is read; gives what is told of each piece.

    Args:
        title: what is done.
        total: bytes of all of it.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    bar = Progress(*columns, transient=True, console=console, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda size: bar.advance(task, size)
