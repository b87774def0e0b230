"""How near readings of each instruction are to every instruction's embedding.

Letters: b batch, c cells, k dimensions, g groups of units, r draws, m instructions.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.grid_metric import (
    GridMetric,
    MetricBatch,
    MetricContext,
    add_by_group,
)
from lightning_modules.metrics.sample_means import SAME
from lightning_modules.metrics.unit_groups import draw_weights

MOST_INSTRUCTIONS = 40
"""More would make a matrix that nobody can read."""


def rows_of(context: MetricContext) -> int:
    """How many instructions there are embeddings of."""
    return len(kept_rows(context))


def kept_rows(context: MetricContext) -> dict[int, list[int]]:
    """Rows of the table that differ, and with each those of the same direction, itself first.

    Instructions whose words were never trained on can have the same embedding.
    """
    if context.table is None:
        return {}
    table = F.normalize(context.table - torch.tensor(context.target.trivial), dim=-1)
    kept: dict[int, list[int]] = {}
    for row in range(len(table)):
        same = [other for other in kept if float(table[row] @ table[other]) > 1 - SAME]
        kept.setdefault(same[0] if same else row, []).append(row)
    return kept


class SimilarityGap(GridMetric):
    """Cosine of readings to their own instruction minus that to the others, both centred.

    Every instruction counts alike. The whole matrix, true instruction by instruction, is kept.
    """

    names: ClassVar = ("similarity_gap",)
    total: Tensor
    rows: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        self.kept = kept_rows(context)
        size = len(self.kept)
        self.add_sum("total", self.groups * size, context.cells, size)
        self.add_sum("rows", self.groups * size, dtype=torch.int64)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """Where there are embeddings of a few instructions."""
        return not context.target.classes and 1 < rows_of(context) <= MOST_INSTRUCTIONS

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """A matrix a cell."""
        return context.cells * rows_of(context) ** 2 * 8

    @property
    def chance(self) -> dict[str, float | None]:
        """A constant answer, or a random direction."""
        return {"similarity_gap": 0.0}

    def _table(self, like: Tensor) -> Tensor:
        assert self.context.table is not None
        mean = like.new_tensor(self.context.target.trivial)
        table = self.context.table[list(self.kept)].to(like)
        return F.normalize(table - mean, dim=-1)

    @property
    def instructions(self) -> tuple[str, ...]:
        """Names of the rows; of several with one embedding the first, and how many they are."""
        names = self.context.target.table_names
        return tuple(
            (f"({len(rows)} alike) " if len(rows) > 1 else "") + names[first]
            for first, rows in self.kept.items()
        )

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Adds each sample to the row of its instruction."""
        outputs, targets = batch.outputs.double(), batch.targets.double()
        mean, table = outputs.new_tensor(self.context.target.trivial), self._table(outputs)
        own = (F.normalize(targets - mean, dim=-1) @ table.T).argmax(-1)
        said = F.normalize(outputs - mean, dim=-1) @ table.T
        place = group * len(table) + own
        add_by_group(self.total, said, place)
        self.rows += torch.bincount(place, minlength=len(self.rows))

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """Mean over instructions of own minus others; NaN where a draw has none."""
        size = len(self.kept)
        rows = weights @ self.rows.cpu().numpy().reshape(self.groups, size)
        total = self.total.cpu().numpy().reshape(self.groups, size, -1, size)
        found = np.full((total.shape[2], len(weights)), np.nan)
        for cell in range(total.shape[2]):
            with np.errstate(invalid="ignore", divide="ignore"):
                matrix = np.einsum("rg,gij->rij", weights, total[:, :, cell]) / rows[..., None]
            own = np.einsum("rii->ri", matrix)
            gap = own - (matrix.sum(-1) - own) / (size - 1)
            known = np.isfinite(gap)
            found[cell] = np.where(known, gap, 0).sum(1) / np.where(known.any(1), known.sum(1), 1)
            found[cell, ~known.any(1)] = np.nan
        return {"similarity_gap": found}

    def matrix(self, cell: int) -> Float64[np.ndarray, "m m"]:
        """Mean cosine of the readings of each instruction (rows) to every one; NaN where unseen."""
        size = len(self.kept)
        with self.sync_context():  # the sums of all ranks, which must all ask
            total, rows = self.total.cpu().numpy(), self.rows.cpu().numpy()
        count = rows.reshape(self.groups, size).sum(0)[:, None]
        sums = total[:, cell].reshape(self.groups, size, size).sum(0)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    def matrix_ends(
        self, cell: int, *, draws: int = 1000, seed: int = 0
    ) -> tuple[Float64[np.ndarray, "m m"], Float64[np.ndarray, "m m"]]:
        """Ends of the 95 % interval of each entry, by drawing whole units.

        NaN where a single unit holds the instruction: it is drawn whole or not at all.
        """
        size = len(self.kept)
        with self.sync_context():  # the sums of all ranks, which must all ask
            total, rows = self.total.cpu().numpy(), self.rows.cpu().numpy()
        count = rows.reshape(self.groups, size)
        weights = draw_weights(count.sum(1), draws=draws, seed=seed)
        sums = total[:, cell].reshape(self.groups, size * size)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (weights @ sums).reshape(-1, size, size) / (weights @ count)[..., None]
        ends = np.full((2, size, size), np.nan)
        for row, units in enumerate((count > 0).sum(0).tolist()):
            if units > 1:
                ends[:, row] = percentiles(drawn[:, row].T, units=units).T
        return ends[0], ends[1]

    def embeddings(self) -> Float64[np.ndarray, "m m"]:
        """What perfect readings would give."""
        table = self._table(torch.zeros((), dtype=torch.float64))
        return (table @ table.T).numpy()
