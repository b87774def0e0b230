"""Streamed XᵀX and XᵀY of several cells, in float64.

Features are centred and scaled by the training rows' statistics before they are multiplied, so
that nothing cancels; what the mean's rounding leaves is corrected exactly at the end.

Letters: b batch, c cells, d width, m target columns, l shifts, e eigenvectors.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lightning_modules.closed_form.cell_sums import class_offsets
from lightning_modules.closed_form.shifted_path import OfSums, eigen_of_square, path


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellGram:
    """The centred sums of one cell."""

    rows: int
    mean_features: Float64[Tensor, " d"]
    mean_targets: Float64[Tensor, " m"]
    gram: Float64[Tensor, "d d"]
    cross: Float64[Tensor, "d m"]

    def columns(self, first: int, size: int) -> "CellGram":
        """The same with some of the targets alone."""
        part = slice(first, first + size)
        return dataclasses.replace(
            self, mean_targets=self.mean_targets[part], cross=self.cross[:, part]
        )

    def ridge(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(XᵀX + shift I)⁻¹ XᵀY for every shift."""
        return path(OfSums(self.gram), self.cross, shifts)

    def within(self, shifts: Sequence[float]) -> Float64[Tensor, "l d m"]:
        """(W + shift I)⁻¹ (class means - mean) for every shift."""
        offsets = class_offsets(self.cross, self.mean_targets * self.rows)
        return path(OfSums(self.gram - offsets @ self.cross.T), offsets, shifts)

    def within_trace(self) -> float:
        """The trace of the scatter within the classes."""
        offsets = class_offsets(self.cross, self.mean_targets * self.rows)
        return float(self.gram.trace() - (offsets * self.cross).sum())

    def eigen(self) -> tuple[Float64[Tensor, " e"], Float64[Tensor, "d e"]]:
        """Eigenvalues of XᵀX above rounding, and their eigenvectors."""
        return eigen_of_square(self.gram)


class GramSums:
    """Accumulates one pass over the training rows, whatever their number."""

    def __init__(self, mean: Float[Tensor, "c d"], std: Float[Tensor, "c d"], columns: int) -> None:
        """Starts at zero.

        Args:
            mean: by which features are centred.
            std: by which they are scaled.
            columns: of the targets.
        """
        self.mean, self.std = mean.double(), std.double()
        cells, width = mean.shape
        zeros = {"dtype": torch.float64, "device": mean.device}
        self.rows = 0
        self.features = torch.zeros(cells, width, **zeros)
        self.targets = torch.zeros(columns, **zeros)
        self.gram = torch.zeros(cells, width, width, **zeros)
        self.cross = torch.zeros(cells, width, columns, **zeros)

    def update(self, features: Float[Tensor, "b c d"], targets: Float[Tensor, "b m"]) -> None:
        """Adds one batch."""
        wanted = targets.double()
        self.rows += len(features)
        self.targets += wanted.sum(0)
        for cell in range(features.shape[1]):
            normal = (features[:, cell].double() - self.mean[cell]) / self.std[cell]
            self.features[cell] += normal.sum(0)
            self.gram[cell].addmm_(normal.T, normal)
            self.cross[cell].addmm_(normal.T, wanted)

    def cell(self, place: int) -> CellGram:
        """The centred sums of one cell."""
        assert self.rows > 0
        features, means = self.features[place], self.targets / self.rows
        mean = features / self.rows
        return CellGram(
            rows=self.rows,
            mean_features=mean,
            mean_targets=means,
            gram=self.gram[place] - torch.outer(mean, features),
            cross=self.cross[place] - torch.outer(features, means),
        )

    def cells(self) -> Iterator[CellGram]:
        """The centred sums of each cell, one at a time."""
        yield from map(self.cell, range(len(self.gram)))
