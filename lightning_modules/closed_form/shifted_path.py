"""Solutions of (A + shift I) W = B for many shifts, where A is XᵀX of centred rows X.

With fewer rows than features the n x n matrix XXᵀ is factorised instead of the d x d one. Every
shift has its own Cholesky factor, which up to some twenty shifts is cheaper than one eigenvalue
decomposition. On a CPU factors are in float32 where that is enough for a solution in float64.

Letters: n rows, d width, m right sides, l shifts, e eigenvectors.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32, Float64
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor

from lightning_modules.closed_form.refined_path import is_worthwhile, refined_path


def products(matrix: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
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


@runtime_checkable
class Square(Protocol):
    """A symmetric matrix A without negative eigenvalues."""

    def single(self) -> Float32[Tensor, "d d"]:
        """Rounded to float32."""
        ...

    def double(self) -> Float64[Tensor, "d d"]:
        """In float64."""
        ...

    def times(self, right: Float64[Tensor, "d m"]) -> Float64[Tensor, "d m"]:
        """A times several columns."""
        ...


@dataclasses.dataclass(frozen=True)
class OfSums:
    """XᵀX as it was summed."""

    square: Float64[Tensor, "d d"]

    def single(self) -> Float32[Tensor, "d d"]:
        """Rounded."""
        return self.square.float()

    def double(self) -> Float64[Tensor, "d d"]:
        """As it is."""
        return self.square

    def times(self, right: Float64[Tensor, "d m"]) -> Float64[Tensor, "d m"]:
        """One product."""
        return transposed_product(self.square, right)


@dataclasses.dataclass(frozen=True)
class OfRows:
    """XᵀX of rows X, which are multiplied in float32 where no more is needed."""

    rows: Float64[Tensor, "n d"]

    def single(self) -> Float32[Tensor, "d d"]:
        """Of rounded rows."""
        return products(self.rows.float())

    def double(self) -> Float64[Tensor, "d d"]:
        """Of the rows as they are."""
        return products(self.rows)

    def times(self, right: Float64[Tensor, "d m"]) -> Float64[Tensor, "d m"]:
        """By the rows, so that nothing of what float32 lost is met again."""
        return transposed_product(self.rows, self.rows @ right)


def path(
    square: Square, right: Float64[Tensor, "d m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """The solution for every shift.

    Raises:
        ValueError: if a shift is too small for the matrix.
    """
    if is_worthwhile(right, shifts):
        found = refined_path(square.single(), square.times, right, shifts)
        if found is not None:
            return found
    double = square.double()
    return torch.stack([solve_shifted(double, right, shift) for shift in shifts])


def ridge_path_of_rows(
    rows: Float64[Tensor, "n d"], targets: Float64[Tensor, "n m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """(XᵀX + shift I)⁻¹ XᵀY for every shift, by the smaller of XᵀX and XXᵀ."""
    if len(rows) < rows.shape[1]:
        duals = path(OfRows(rows.T), targets, shifts)
        return torch.stack([transposed_product(rows, dual) for dual in duals])
    return path(OfRows(rows), transposed_product(rows, targets), shifts)


def path_of_rows(
    rows: Float64[Tensor, "n d"], right: Float64[Tensor, "d m"], shifts: Sequence[float]
) -> Float64[Tensor, "l d m"]:
    """(XᵀX + shift I)⁻¹ B for every shift, by the smaller of XᵀX and XXᵀ.

    Source: the matrix inversion lemma (Woodbury) for the dual form.
    """
    if len(rows) >= rows.shape[1]:
        return path(OfRows(rows), right, shifts)
    duals = path(OfRows(rows.T), rows @ right, shifts)
    return torch.stack(
        [
            (right - transposed_product(rows, dual)) / shift
            for dual, shift in zip(duals, shifts, strict=True)
        ]
    )


ROUNDING = 1e-12
"""Eigenvalues below this share of the largest one are rounding."""


def eigen_of_square(
    square: Float64[Tensor, "d d"],
) -> tuple[Float64[Tensor, " e"], Float64[Tensor, "d e"]]:
    """Eigenvalues above rounding, and their eigenvectors."""
    sizes, directions = torch.linalg.eigh(square)
    kept = sizes > ROUNDING * sizes[-1].clamp(min=0)
    return sizes[kept], directions[:, kept]


def eigen_of_rows(
    rows: Float64[Tensor, "n d"],
) -> tuple[Float64[Tensor, " e"], Float64[Tensor, "d e"]]:
    """Those of XᵀX, by the smaller of XᵀX and XXᵀ."""
    if len(rows) >= rows.shape[1]:
        return eigen_of_square(products(rows))
    sizes, sides = eigen_of_square(products(rows.T))
    return sizes, rows.T @ (sides / sizes.sqrt())
