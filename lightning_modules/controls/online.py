"""The online code of a grid: probes on growing prefixes of the training units, in the same pass.

Block 0 is sent with the uniform code; the probe that was trained on blocks 0 to p - 1 sends block
p. Blocks are whole units of the split, in a random order.

Letters: b batch, c cells, n clusters (episodes), s blocks.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor, nn

from datamodules.clusters import Clusters
from datamodules.latent_batch import LatentBatch
from lightning_modules.grid_product import said_by
from lightning_modules.metrics.cluster_sums import ClusterSums
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_group import FeatureScaler, ProbeGroup
from lightning_modules.statistics.online_code import OnlineCode, block_of_unit, online_code


def blocks_of_clusters(
    clusters: Clusters, training: Int64[np.ndarray, "_"], *, seed: int
) -> Int64[np.ndarray, " n"]:
    """The block of each cluster, -1 for those without training samples.

    With fewer than two training units there is no block.

    Args:
        clusters: the episodes and their units.
        training: the clusters that have training samples.
        seed: of the order of the units.
    """
    block = np.full(len(clusters), -1, np.int64)
    units, place = np.unique(clusters.unit_of_episode[training], return_inverse=True)
    if len(units) > 1:
        block[training] = block_of_unit(len(units), seed=seed)[place]
    return block


def rows_of_prefix(
    prefix: int, block: Int[Tensor, " n"], clusters: Int[Tensor, " b"]
) -> Bool[Tensor, " b"]:
    """Which samples a probe of this prefix may train on."""
    return (block[clusters] >= 0) & (block[clusters] < prefix)


class OnlineCodeSums(nn.Module):
    """Sums of the losses by which each block is sent, for every cell that is asked about."""

    block: Int[Tensor, " n"]

    def __init__(self, cells: int, block: Int64[np.ndarray, " n"]) -> None:
        super().__init__()
        self.blocks = int(block.max(initial=-1)) + 1
        self.register_buffer("block", torch.from_numpy(block), persistent=False)
        self.sums = ClusterSums(cells, self.blocks)

    def update(
        self,
        groups: Sequence[ProbeGroup],
        scalers: Sequence[FeatureScaler],
        objective: Objective,
        batch: LatentBatch,
    ) -> None:
        """Sends one batch of training rows, each by the probe of its block.

        Args:
            groups: those with a prefix, field by field.
            scalers: of the sources.
            objective: cross-entropy.
            batch: the rows.
        """
        block = self.block[batch.clusters]
        for number in range(self.blocks):
            here = block == number
            if not here.any():
                continue
            senders = [group for group in groups if group.spec.prefix == number]
            targets, count = batch.targets[here], int(here.sum())
            features = [values[here] for values in batch.features]
            losses = [
                objective.loss(said, targets)
                for said in said_by(senders, scalers, features, best=True)
            ] or [torch.zeros(count, self.sums.total.shape[0], device=block.device)]
            self.sums.update(torch.cat(losses, dim=1), block[here])

    def code(self, classes: int) -> OnlineCode | None:
        """The code lengths; None where nothing was counted."""
        total, count = (cast(Tensor, part).cpu().numpy() for part in self.sums.compute())
        if not count.sum():
            return None
        return online_code(total[:, 1:], int(count[0]), count[1:], classes)
