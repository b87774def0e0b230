"""What a closed form knows of the training rows of one cell.

Letters: d width, m target columns, l shifts, e eigenvectors.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float64
from torch import Tensor


@runtime_checkable
class CellSums(Protocol):
    """Centred sums of one cell, or its centred rows: both give the same solutions."""

    @property
    def rows(self) -> int:
        """How many training rows there were."""
        ...

    @property
    def mean_features(self) -> Float64[Tensor, " d"]:
        """By which the features were centred, once they were standardised."""
        ...

    @property
    def mean_targets(self) -> Float64[Tensor, " m"]:
        """By which the targets were centred; with classes as targets, the classes' shares."""
        ...

    @property
    def cross(self) -> Float64[Tensor, "d m"]:
        """XᵀY of centred features and targets.

        With classes as targets, column k is the number of rows of class k times the distance of
        its mean from the mean of all.
        """
        ...

    def columns(self, first: int, size: int) -> "CellSums":
        """The same with some of the targets alone."""
        ...

    def ridge(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(XᵀX + shift I)⁻¹ XᵀY for every shift."""
        ...

    def within(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(W + shift I)⁻¹ (class means - mean) for every shift, where the targets are classes.

        W is the scatter within the classes, the sum over rows of (x - class mean)(...)ᵀ.
        """
        ...

    def within_trace(self) -> float:
        """The trace of W."""
        ...

    def eigen(self) -> tuple[Float64[Tensor, " e"], Float64[Tensor, "d e"]]:
        """Eigenvalues of XᵀX above rounding, and their eigenvectors."""
        ...


def class_offsets(
    cross: Float64[Tensor, "d m"], counts: Float64[Tensor, " m"]
) -> Float64[Tensor, "d m"]:
    """Each class's mean minus the mean of all; 0 for a class without rows."""
    return cross / counts.clamp(min=1.0)
