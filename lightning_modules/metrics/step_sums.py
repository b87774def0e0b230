"""Scores by rollout step: sums of every cell, kept apart by group of units and stretch of steps.

Letters: b batch, c cells, g groups of units, s stretches of steps, r draws.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from lightning_modules.metrics.cluster_sums import ClusterSums
from lightning_modules.metrics.unit_groups import deal_units

MOST_STRETCHES = 12
"""Stretches of the rollout that are kept apart."""


def stretch_length(last: int, stride: int) -> int:
    """Environment steps of a stretch: whole strides, so that stretches hold equally many samples.

    Args:
        last: the last timestep of all.
        stride: what divides every timestep.
    """
    return stride * -(-(last // stride + 1) // MOST_STRETCHES)


class StepSums(nn.Module):
    """Accumulates a score a sample and cell by the stretch of the rollout that it stands in."""

    group_of_cluster: Tensor

    def __init__(
        self,
        cells: int,
        unit_of_cluster: Int64[np.ndarray, " n"],
        steps_of_cluster: Int64[np.ndarray, " n"],
        stride: int,
    ) -> None:
        super().__init__()
        group = deal_units(unit_of_cluster)
        self.groups = int(group.max(initial=0)) + 1
        last = int(steps_of_cluster.max(initial=1)) - 1
        self.length = stretch_length(last, stride)
        self.stretches = last // self.length + 1
        self.sums = ClusterSums(cells, self.groups * self.stretches)
        self.register_buffer("group_of_cluster", torch.from_numpy(group), persistent=False)

    def update(
        self,
        scores: Float[Tensor, "b c"],
        clusters: Int[Tensor, " b"],
        timesteps: Int[Tensor, " b"],
    ) -> None:
        """Adds one batch."""
        stretch = (timesteps // self.length).clamp(0, self.stretches - 1)
        self.sums.update(scores, self.group_of_cluster[clusters] * self.stretches + stretch)

    @property
    def starts(self) -> list[int]:
        """The first step of each stretch."""
        return [self.length * i for i in range(self.stretches)]

    def compute(self) -> tuple[Float64[np.ndarray, "c g s"], Int64[np.ndarray, "g s"]]:
        """Sums and numbers of samples."""
        total, count = (values.cpu().numpy() for values in self.sums.compute())
        shape = (self.groups, self.stretches)
        return total.reshape(-1, *shape), count.reshape(shape)


def drawn_means(
    total: Float64[np.ndarray, "c g s"],
    count: Int64[np.ndarray, "g s"],
    weights: Float64[np.ndarray, "r g"],
) -> Float64[np.ndarray, "c s r"]:
    """Means of every cell and stretch on weighted groups; NaN where a draw has no sample."""
    drawn = (weights @ count).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([(weights @ cell).T / drawn for cell in total])
