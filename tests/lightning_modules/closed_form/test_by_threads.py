"""Claims about solving the cells of a pass side by side."""

import pytest
import torch
from threadpoolctl import threadpool_info

from lightning_modules.closed_form.by_threads import map_cells, workers_for
from lightning_modules.closed_form.kept_rows import KeptRows
from lightning_modules.closed_form.ridge import STRENGTHS, ridge_path


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def library_threads() -> list[int]:
    return [torch.get_num_threads(), *(found["num_threads"] for found in threadpool_info())]


def test_cells_solved_side_by_side_equal_those_solved_one_by_one(four_threads):
    random = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(40, 6, 64, generator=random), torch.arange(40) % 3
    sums = KeptRows(torch.zeros(6, 64), torch.ones(6, 64), 3, rows=40)
    sums.update(rows, torch.nn.functional.one_hot(labels, 3).float())
    alone, beside = (
        map_cells(lambda place: ridge_path(sums.cell(place), STRENGTHS), 6, workers)
        for workers in (1, 3)
    )
    for (weights, bias), (others, other_bias) in zip(alone, beside, strict=True):
        torch.testing.assert_close(weights, others, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(bias, other_bias, rtol=1e-10, atol=1e-12)


def test_each_worker_has_its_part_of_the_threads_and_all_come_back(four_threads):
    before = library_threads()
    assert map_cells(lambda _: torch.get_num_threads(), 4, 2) == [2] * 4
    with pytest.raises(ZeroDivisionError, match="division"):
        map_cells(lambda place: 1 // place, 2, 4)
    assert library_threads() == before


@pytest.mark.parametrize(("room", "workers"), [(1000, 4), (250, 2), (20, 1), (0, 1)])
def test_no_more_cells_are_solved_at_once_than_there_is_memory_for(four_threads, room, workers):
    assert workers_for(torch.device("cpu"), work=100, room=room) == workers


def test_a_gpu_solves_one_cell_at_a_time(four_threads):
    assert workers_for(torch.device("cuda"), work=1, room=1000) == 1
