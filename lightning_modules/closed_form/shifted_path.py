"""Solutions of (A + shift I) W = B for many shifts, where A is XᵀX of centred rows X.

With fewer rows than features the n x n matrix XXᵀ is factorised instead of the d x d one. Every
shift has its own Cholesky factor, which up to some twenty shifts is cheaper than one eigenvalue
decomposition.

Letters: n rows, d width, m right sides, l shifts.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor


def products(matrix: Float64[Tensor, "n d"]) -> Float64[Tensor, "d d"]:
    """MᵀM; NumPy knows that it is symmetric and takes half the time of torch on a CPU."""
    if matrix.is_cuda:
        return matrix.T @ matrix
    array = matrix.numpy()
    return torch.from_numpy(array.T @ array)


def solve_shifted(
    square: Float64[Tensor, "d d"], right: Float64[Tensor, "d m"], shift: float
) -> Float64[Tensor, "d m"]:
    """(square + shift I)⁻¹ right; leaves `square` as it was.

    Raises:
        ValueError: if the shift is too small for the matrix.
    """
    shifted = square.clone()
    shifted.diagonal().add_(shift)
    if shifted.is_cuda:
        factor, failed = torch.linalg.cholesky_ex(shifted)
        _check(not bool(failed), shift)
        return torch.cholesky_solve(right, factor)
    try:
        # LAPACK through SciPy, in place: a third faster than through torch. The matrix is
        # symmetric, so its transpose has the order that LAPACK wants.
        found = cho_factor(shifted.numpy().T, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        found = None
    _check(found is not None, shift)
    return torch.from_numpy(cho_solve(found, right.numpy(), check_finite=False))


def _check(solved: bool, shift: float) -> None:
    if not solved:
        raise ValueError(
            f"`strengths` must be large enough for a stable solution, but got a shift of "
            f"{shift:.3g}, with which the features' products are singular. Choose larger ones."
        )


def transposed_product(
    rows: Float64[Tensor, "n d"], right: Float64[Tensor, "n m"]
) -> Float64[Tensor, "d m"]:
    """RowsᵀB; with B as the left factor, which is many times faster where B is narrow."""
    return (right.T @ rows).T


def path(
    square: Float64[Tensor, "d d"], right: Float64[Tensor, "d m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """The solution for every shift, from XᵀX."""
    return torch.stack([solve_shifted(square, right, shift) for shift in shifts])


def ridge_path_of_rows(
    rows: Float64[Tensor, "n d"], targets: Float64[Tensor, "n m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """(XᵀX + shift I)⁻¹ XᵀY for every shift, by the smaller of XᵀX and XXᵀ."""
    if len(rows) < rows.shape[1]:
        kernel = products(rows.T)
        return torch.stack(
            [transposed_product(rows, solve_shifted(kernel, targets, shift)) for shift in shifts]
        )
    return path(products(rows), transposed_product(rows, targets), shifts)


def path_of_rows(
    rows: Float64[Tensor, "n d"], right: Float64[Tensor, "d m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """(XᵀX + shift I)⁻¹ B for every shift, by the smaller of XᵀX and XXᵀ.

    Source: the matrix inversion lemma (Woodbury) for the dual form.
    """
    if len(rows) >= rows.shape[1]:
        return path(products(rows), right, shifts)
    kernel, seen = products(rows.T), rows @ right
    return torch.stack(
        [
            (right - transposed_product(rows, solve_shifted(kernel, seen, shift))) / shift
            for shift in shifts
        ]
    )
