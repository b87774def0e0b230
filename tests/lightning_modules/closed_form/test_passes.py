import pytest
import torch

from lightning_modules.closed_form.passes import describe_passes, plan_passes
from lightning_modules.closed_form.strength_choice import at_the_edge, best_strength

GRID = {"columns": 10, "itemsize": 2, "strengths": 5}


def test_few_rows_are_kept_and_many_are_summed():
    few = plan_passes([1024], rows=2000, memory_budget=2**40, **GRID)
    many = plan_passes([1024], rows=100_000, memory_budget=2**40, **GRID)
    assert (few[0].forms, many[0].forms) == (("rows",), ("sums",))
    assert few[0].bytes == 2000 * 1024 * 2 + 8 * 5 * 1024 * 10
    assert many[0].bytes == 8 * 1024 * (1024 + 10 + 2) + 8 * 5 * 1024 * 10


def test_passes_are_as_few_as_the_budget_allows_and_hold_every_cell_once():
    widths = [2048] * 18 + [1024] * 180
    passes = plan_passes(widths, rows=100_000, memory_budget=2**30, **GRID)
    assert [cell for p in passes for cell in p.cells] == list(range(198))
    assert max(p.bytes for p in passes) <= 2**30
    assert len(passes) == 3
    assert min(p.bytes for p in passes[:-1]) > 0.9 * 2**30
    assert describe_passes(passes).startswith("3 passes over the training data for 198 cells: ")


def test_a_budget_below_one_cell_is_refused_with_what_it_needs():
    with pytest.raises(ValueError, match=r"hold at least one cell, \d+ bytes for width 1024.*1000"):
        plan_passes([1024], rows=100_000, memory_budget=1000, **GRID)


def test_the_strength_with_the_lowest_held_out_loss_is_chosen_and_the_strongest_of_equals():
    losses = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 2.0], [1.0, float("nan"), 0.5]]).double()
    chosen = best_strength(losses)
    assert chosen.tolist() == [1, 1, 2]
    assert at_the_edge(chosen, 3) == 1
