"""Solutions of (A + shift I) W = B for many shifts, factorised in float32 and refined to float64.

A factor in float32 takes half the time of one in float64, and is most of the work. What its
solution leaves of B is computed in float64 and solved again, until nothing that matters is added.

Letters: d width, m right sides, l shifts.

Source: iterative refinement as in LAPACK's DSPOSV (Buttari et al., 2007).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor

ENOUGH = 1e-6
"""A last step of this share of a column's largest number ends the work: each step makes the error
smaller about as much as it is smaller than the one before, by a hundred times at least."""
STEPS = 4
COLUMNS_A_ROW = 0.1
"""With more right sides than this share of the width, computing what is left takes too long."""


def is_worthwhile(right: Float64[Tensor, "d m"], shifts: Sequence[float]) -> bool:
    """Whether the factors are most of the work; a GPU is asked for float64 at once."""
    return not right.is_cuda and right.shape[1] * len(shifts) <= COLUMNS_A_ROW * len(right)


def refined_path(
    square: Float32[Tensor, "d d"],
    times: Callable[[Float64[Tensor, "d q"]], Float64[Tensor, "d q"]],
    right: Float64[Tensor, "d m"],
    shifts: Sequence[float],
) -> Float64[Tensor, "l d m"] | None:
    """The solution for every shift; None where float32 is too coarse for one of them.

    Args:
        square: A, rounded.
        times: A times several columns, in float64.
        right: B.
        shifts: what is added to the diagonal of A.
    """
    factors = []
    for shift in shifts:
        factors.append(_factor(square, shift))
        if factors[-1] is None:
            return None
    found = torch.zeros(len(shifts), *right.shape, dtype=torch.float64)
    left = dict.fromkeys(range(len(shifts)), right)
    for _ in range(STEPS):
        steps = {place: _solve(factors[place], b) for place, b in left.items()}
        for place, step in steps.items():
            found[place] += step
        unsettled = [place for place, step in steps.items() if not _settled(step, found[place])]
        if not unsettled:
            return found
        applied = times(found[unsettled].transpose(0, 1).flatten(1)).unflatten(
            1, (-1, right.shape[1])
        )
        left = {
            place: right - applied[:, i] - shifts[place] * found[place]
            for i, place in enumerate(unsettled)
        }
    return None


def _factor(square: Float32[Tensor, "d d"], shift: float) -> Any:
    shifted = square.clone()
    shifted.diagonal().add_(shift)
    try:
        return cho_factor(shifted.numpy().T, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None


def _solve(factor: Any, right: Float64[Tensor, "d m"]) -> Float64[Tensor, "d m"]:
    """By columns of length about one, which float32 holds whatever their units are."""
    scale = right.abs().amax(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    columns = (right / scale).numpy().astype(np.float32, order="F")
    solved = cho_solve(factor, columns, overwrite_b=True, check_finite=False)
    return torch.from_numpy(np.ascontiguousarray(solved, np.float64)) * scale


def _settled(step: Float64[Tensor, "d m"], found: Float64[Tensor, "d m"]) -> bool:
    return bool((step.abs().amax(0) <= ENOUGH * found.abs().amax(0)).all())
