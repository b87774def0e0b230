"""Factors in float32, solutions in float64."""

import numpy as np
import pytest
import torch

from lightning_modules.closed_form import shifted_path
from lightning_modules.closed_form.refined_path import refined_path
from lightning_modules.closed_form.shifted_path import OfRows, OfSums, path


def rows_of(n=300, d=240, smallest=1e-2, seed=0):
    """Rows whose directions differ in length from 1 to `smallest`."""
    random = np.random.default_rng(seed)
    u, _, v = np.linalg.svd(random.normal(size=(n, d)), full_matrices=False)
    return torch.from_numpy(u * np.geomspace(1, smallest, d) @ v)


def exact(square, right, shift):
    return np.linalg.solve(square.numpy() + shift * np.eye(len(square)), right.numpy())


def relative(found, wanted):
    """The largest error of each column, in units of its largest number."""
    return (np.abs(found.numpy() - wanted).max(0) / np.abs(wanted).max(0)).max()


@pytest.mark.parametrize("of", ["rows", "sums"])
def test_refined_solutions_are_those_of_float64(of):
    rows = rows_of()
    square, right = rows.T @ rows, torch.randn(240, 5, dtype=torch.float64)
    right *= torch.tensor([1, 1e-30, 1e30, 1, 1])  # units that float32 does not hold
    shifts = (1e-4, 1e-2, 1.0)
    given = OfRows(rows) if of == "rows" else OfSums(square)
    found = refined_path(given.single(), given.times, right, shifts)
    assert found is not None
    for shift, solution in zip(shifts, found, strict=True):
        assert relative(solution, exact(square, right, shift)) < 1e-9
    alone = np.linalg.solve(square.numpy().astype(np.float32) + 1e-4 * np.eye(240, dtype="f4"),
                            right[:, :1].numpy().astype(np.float32))  # fmt: skip
    assert relative(torch.from_numpy(alone), exact(square, right[:, :1], 1e-4)) > 1e-6


def test_what_float32_is_too_coarse_for_is_solved_in_float64():
    rows = rows_of(smallest=1e-5)
    square, right = rows.T @ rows, torch.randn(240, 2, dtype=torch.float64)
    assert refined_path(square.float(), OfSums(square).times, right, [1e-10]) is None
    (found,) = path(OfRows(rows), right, [1e-10])
    assert relative(found, exact(square, right, 1e-10)) < 1e-4


def test_many_right_sides_are_solved_in_float64_at_once(monkeypatch):
    def never(*_):
        raise AssertionError("factors are not most of the work")

    monkeypatch.setattr(shifted_path, "refined_path", never)
    rows = rows_of(60, 40)
    (found,) = path(OfRows(rows), torch.eye(40, dtype=torch.float64), [0.1])
    np.testing.assert_allclose(found, exact(rows.T @ rows, torch.eye(40), 0.1), atol=1e-9)
