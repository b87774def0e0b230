"""A group of probes that share a source of features, a kind of target and their training rows.

The probes that are asked about are such groups, and so is every control: a control is more cells
in the same pass.

Letters: c cells of the group, d width, r width after a random projection, k classes or dimensions.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from datamodules.cell import Cell
from datamodules.feature_source import MAIN
from datamodules.statistics import FeatureStatistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """What a group reads and what it is trained on."""

    kind: str
    """`main`, or the control's name."""
    source: int
    """Which of the batch's features it reads."""
    cells: tuple[Cell, ...]
    width: int
    """Numbers a cell that its linear maps see."""
    exchanged: bool = False
    """Whether every episode has the targets of another one: the control task."""
    projected_from: int = 0
    """The source's width, where a fixed random projection stands before the linear maps."""
    prefix: int = 0
    """Trains on the training units of the first so many blocks; 0 means all units."""
    first: int = 0
    """Place of its first cell in the source."""
    round: int = 0
    """When it trains, where not all cells do at once."""

    @property
    def places(self) -> slice:
        """Its cells among those of the source."""
        return slice(self.first, self.first + len(self.cells))

    @property
    def is_main(self) -> bool:
        """Whether it is asked about, and no control."""
        return self.kind == MAIN

    @property
    def name(self) -> str:
        """What tells its random numbers from those of another group on the same cells."""
        return f"{self.kind}{self.prefix or ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**dataclasses.asdict(self), "cells": [cell.to_json() for cell in self.cells]}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "GroupSpec":
        """Reads what `to_json` wrote."""
        return cls(**{**entry, "cells": tuple(Cell.from_json(c) for c in entry["cells"])})


def seeded(text: str) -> torch.Generator:
    """A generator that depends on a text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def initial_weight(name: str, width: int, size: int, seed: int) -> Float[Tensor, "d k"]:
    """Small random weights that depend on the cell's name and the seed alone."""
    generator = seeded(f"{seed}/{name}")
    return torch.randn(width, size, generator=generator) * 0.1 * width**-0.5


class FeatureScaler(nn.Module):
    """Centres and scales the features of one source."""

    mean: Float[Tensor, "c d"]
    std: Float[Tensor, "c d"]

    def __init__(self, cells: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(cells, width))
        self.register_buffer("std", torch.ones(cells, width))

    def set(self, statistics: FeatureStatistics) -> None:
        """Takes over the statistics of the training rows."""
        self.mean.copy_(statistics.mean)
        self.std.copy_(statistics.std)


class ProbeGroup(nn.Module):
    """Linear maps of a group's cells, with the best ones of each cell kept.

    A solver that needs no steps calls `set_best` once; training calls `keep_best` every epoch.

    Args:
        spec: what the group reads.
        size: classes or dimensions of the target.
        seed: of the initial weights and of the random projection.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    projection: Float[Tensor, "d r"] | None
    best_weight: Float[Tensor, "c d k"]
    best_bias: Float[Tensor, "c k"]
    best_loss: Float64[Tensor, " c"]
    best_epoch: Int[Tensor, " c"]
    stale: Int[Tensor, " c"]
    penalty: Float64[Tensor, " c"]
    """The strength that a closed form has chosen on the validation split; NaN where trained."""

    def __init__(self, spec: GroupSpec, *, size: int, seed: int) -> None:
        super().__init__()
        self.spec = spec
        cells = len(spec.cells)
        prefix = "" if spec.is_main else f"{spec.name}/"
        names = [prefix + cell.name for cell in spec.cells]
        weight = torch.stack([initial_weight(name, spec.width, size, seed) for name in names])
        bias = torch.zeros(cells, size)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        buffers: dict[str, Tensor] = {
            "best_weight": weight.clone(),
            "best_bias": bias.clone(),
            "best_loss": torch.full((cells,), torch.inf, dtype=torch.float64),
            "best_epoch": torch.full((cells,), -1),
            "stale": torch.zeros(cells, dtype=torch.int64),
            "penalty": torch.full((cells,), torch.nan, dtype=torch.float64),
        }
        for word, value in buffers.items():
            self.register_buffer(word, value)
        self.register_buffer("projection", self._projection(seed), persistent=False)

    def _projection(self, seed: int) -> Float[Tensor, "d r"] | None:
        d, r = self.spec.projected_from, self.spec.width
        generator = seeded(f"{seed}/{self.spec.name}/{d}")
        return torch.randn(d, r, generator=generator) * d**-0.5 if d else None

    def maps(self, *, best: bool) -> tuple[Float[Tensor, "c d k"], Float[Tensor, "c k"]]:
        """Weights, for standardised features as wide as the source's, and biases.

        Args:
            best: whether the best ones so far or those in training.
        """
        weight, bias = (self.best_weight, self.best_bias) if best else (self.weight, self.bias)
        if self.projection is not None:
            # (x P) W = x (P W): the small product first, so that a projected cell costs little.
            weight = torch.einsum("dr,crk->cdk", self.projection, weight)
        return weight, bias

    def active(self, patience: int) -> Bool[Tensor, " c"]:
        """Which cells still train."""
        return self.stale < patience

    def keep_best(
        self, loss: Float64[Tensor, " c"], *, epoch: int, patience: int, min_delta: float
    ) -> None:
        """Takes the current maps of every active cell whose validation loss is better."""
        active = self.active(patience)
        better = active & (loss < self.best_loss - min_delta)
        self.stale += (active & ~better).long()
        self.stale[better] = 0
        self.set_best(better, self.weight.detach(), self.bias.detach(), loss, epoch)

    def set_best(
        self,
        cells: Bool[Tensor, " c"],
        weight: Float[Tensor, "c d k"],
        bias: Float[Tensor, "c k"],
        loss: Float64[Tensor, " c"],
        epoch: int,
    ) -> None:
        """Takes the maps of some cells, with their validation loss, as the best."""
        self.best_loss[cells] = loss[cells]
        self.best_epoch[cells] = epoch
        self.best_weight[cells] = weight[cells]
        self.best_bias[cells] = bias[cells]
