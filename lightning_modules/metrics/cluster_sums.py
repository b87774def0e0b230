"""Sums of a value a sample and cell, kept apart by cluster (episode).

Everything that is said about a mean (the mean itself, a task's mean, an interval by bootstrap
over episodes) is a pure function of these sums, so a stream of any length takes the same memory.

Letters: b batch, c cells, n clusters, g groups (tasks).
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torchmetrics import Metric


def cluster_totals(
    values: Float[Tensor, "b c"], clusters: Int[Tensor, " b"], size: int
) -> tuple[Float64[Tensor, "c n"], Int[Tensor, " n"]]:
    """Sums of the values and number of the samples in each cluster."""
    total = torch.zeros(size, values.shape[1], dtype=torch.float64, device=values.device)
    total.index_add_(0, clusters, values.double())
    return total.T.contiguous(), torch.bincount(clusters, minlength=size)


def mean_over_samples(
    total: Float64[Tensor, "c n"], count: Int[Tensor, " n"]
) -> Float64[Tensor, " c"]:
    """The mean over all samples; NaN where there is none."""
    return total.sum(-1) / count.sum()


def mean_by_group(
    total: Float64[Tensor, "c n"],
    count: Int[Tensor, " n"],
    group_of_cluster: Int[Tensor, " n"],
    groups: int,
) -> Float64[Tensor, "c g"]:
    """The mean over the samples of each group of clusters; NaN where a group has none."""
    sums = torch.zeros(total.shape[0], groups, dtype=total.dtype, device=total.device)
    sums.index_add_(1, group_of_cluster, total)
    counts = torch.zeros(groups, dtype=count.dtype, device=count.device)
    counts.index_add_(0, group_of_cluster, count)
    return sums / counts


class ClusterSums(Metric):
    """Accumulates a value a sample and cell; `compute` gives the sums by cluster."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, cells: int, clusters: int) -> None:
        super().__init__()
        zeros = torch.zeros(cells, clusters, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(clusters, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Float[Tensor, "b c"], clusters: Int[Tensor, " b"]) -> None:
        """Adds one batch."""
        total, count = cluster_totals(values, clusters, self.count.shape[0])
        self.total += total
        self.count += count

    def compute(self) -> tuple[Float64[Tensor, "c n"], Int[Tensor, " n"]]:
        """Sums and numbers of samples by cluster."""
        return self.total, self.count
