"""Works on the cells of a pass side by side, each on one thread.

The matrices of a cell are small. Dividing one among the threads of a matrix library makes them wait
for each other more than they compute, ten times as long where other programs run beside; so the
cells are divided instead.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")


def workers_for(device: torch.device, *, work: int, room: int) -> int:
    """How many cells are solved at once: as many as there are threads and memory.

    Args:
        device: on which the cells are; a GPU takes one at a time.
        work: bytes that solving one takes.
        room: bytes that are left.
    """
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), room // max(work, 1)))


@contextmanager
def divided_threads(workers: int) -> Iterator[None]:
    """Leaves each worker its part of the threads; restores them afterwards."""
    threads = torch.get_num_threads()
    each = max(1, threads // workers)
    with threadpool_limits(each):
        torch.set_num_threads(each)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def map_cells(function: Callable[[int], T], cells: int, workers: int) -> list[T]:
    """The function of each cell's place, in order.

    Args:
        function: mostly in libraries that let other threads run meanwhile.
        cells: how many there are.
        workers: how many at once.
    """
    with divided_threads(workers):
        if workers == 1:
            return [function(cell) for cell in range(cells)]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(function, range(cells)))
