"""The training rows themselves, kept as they are stored where that takes less than XᵀX.

With fewer rows than features this is the dual form: an n x n matrix is solved.

Letters: b batch, c cells, n rows, d width, m target columns, l shifts, e eigenvectors.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lightning_modules.closed_form.cell_sums import class_offsets
from lightning_modules.closed_form.shifted_path import (
    eigen_of_rows,
    path_of_rows,
    ridge_path_of_rows,
    transposed_product,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellRows:
    """The centred rows of one cell."""

    rows: int
    mean_features: Float64[Tensor, " d"]
    mean_targets: Float64[Tensor, " m"]
    features: Float64[Tensor, "n d"]
    targets: Float64[Tensor, "n m"]

    @property
    def cross(self) -> Float64[Tensor, "d m"]:
        """XᵀY."""
        return transposed_product(self.features, self.targets)

    def columns(self, first: int, size: int) -> "CellRows":
        """The same with some of the targets alone."""
        part = slice(first, first + size)
        return dataclasses.replace(
            self, mean_targets=self.mean_targets[part], targets=self.targets[:, part]
        )

    def ridge(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(XᵀX + shift I)⁻¹ XᵀY for every shift."""
        return ridge_path_of_rows(self.features, self.targets, shifts)

    def within(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(W + shift I)⁻¹ (class means - mean) for every shift."""
        return path_of_rows(self._within_rows(), self._offsets(), shifts)

    def within_trace(self) -> float:
        """The trace of the scatter within the classes."""
        return float(self._within_rows().square().sum())

    def eigen(self) -> tuple[Float64[Tensor, " e"], Float64[Tensor, "d e"]]:
        """Eigenvalues of XᵀX above rounding, and their eigenvectors."""
        return eigen_of_rows(self.features)

    def _offsets(self) -> Float64[Tensor, "d m"]:
        return class_offsets(self.cross, self.mean_targets * self.rows)

    def _within_rows(self) -> Float64[Tensor, "n d"]:
        own = (self.targets + self.mean_targets) @ self._offsets().T
        return self.features - own


class KeptRows:
    """Collects one pass over the training rows."""

    def __init__(
        self, mean: Float[Tensor, "c d"], std: Float[Tensor, "c d"], columns: int, *, rows: int
    ) -> None:
        """Starts without rows.

        Args:
            mean: by which features are centred.
            std: by which they are scaled.
            columns: of the targets.
            rows: how many will come at most.
        """
        self.mean, self.std, self.most = mean, std, rows
        self.rows = 0
        self.features: Float[Tensor, "c n d"] | None = None
        self.targets = torch.zeros(rows, columns, dtype=torch.float64, device=mean.device)

    def update(self, features: Float[Tensor, "b c d"], targets: Float[Tensor, "b m"]) -> None:
        """Adds one batch, in the type in which it is stored."""
        if self.features is None:
            size = (features.shape[1], self.most, features.shape[2])
            self.features = torch.empty(size, dtype=features.dtype, device=features.device)
        end = self.rows + len(features)
        self.features[:, self.rows : end] = features.transpose(0, 1)
        self.targets[self.rows : end] = targets.double()
        self.rows = end

    def cell(self, place: int) -> CellRows:
        """The centred rows of one cell."""
        assert self.features is not None
        normal = self.features[place, : self.rows].double()
        normal.sub_(self.mean[place]).div_(self.std[place])
        mean, targets = normal.mean(0), self.targets[: self.rows]
        means = targets.mean(0)
        return CellRows(
            rows=self.rows,
            mean_features=mean,
            mean_targets=means,
            features=normal.sub_(mean),  # in place: fresh memory costs more than arithmetic
            targets=targets - means,
        )

    def cells(self) -> Iterator[CellRows]:
        """The centred rows of each cell, one at a time."""
        assert self.features is not None
        yield from map(self.cell, range(len(self.features)))
