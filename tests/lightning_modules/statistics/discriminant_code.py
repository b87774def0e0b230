"""Losses of a linear discriminant on growing prefixes: something quick to measure a code of.

Letters: n rows, d width, k classes, l shrinkages.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from lightning_modules.closed_form.kept_rows import CellRows
from lightning_modules.closed_form.lda import SHRINKAGES, lda_path


def prefix_losses(
    features: Float64[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    blocks: Int64[Tensor, " n"],
    *,
    classes: int,
    shrinkages: Sequence[float] = SHRINKAGES,
) -> list[float]:
    """Summed cross-entropy of each block after the first, by a discriminant of those before it.

    One shrinkage serves all blocks: the one with the shortest code, which must be sent as well.
    A class that the blocks before never held gets the probability of half a sample.

    Args:
        features: of one cell, standardised.
        labels: the classes.
        blocks: of the rows, 0, 1, ...
        classes: how many there are.
        shrinkages: to choose from.

    Returns:
        The losses in nats; the first one holds the price of sending the shrinkage too.
    """
    found = []
    for block in range(1, int(blocks.max()) + 1):
        before, here = blocks < block, blocks == block
        targets = torch.nn.functional.one_hot(labels[before], classes).double()
        weights, bias = lda_path(_centred(features[before], targets), shrinkages)
        scores = torch.einsum("nd,ldk->lnk", features[here], weights) + bias[:, None]
        seen = targets.sum(0) > 0
        chance = torch.where(seen, scores, -torch.inf).softmax(-1)
        rest = 0.5 / (len(targets) + 0.5) * (~seen).any()
        chance = torch.where(seen, chance * (1 - rest), rest / (~seen).sum().clamp(min=1))
        own = labels[here][None, :, None].expand(len(shrinkages), -1, 1)
        found.append(-chance.gather(-1, own)[..., 0].log().sum(-1))
    losses = torch.stack(found, dim=-1)
    best = int(losses.sum(-1).argmin())
    losses[best, 0] += math.log(len(shrinkages))
    return losses[best].tolist()


def _centred(features: Float64[Tensor, "n d"], targets: Float64[Tensor, "n m"]) -> CellRows:
    """The rows of one cell, centred; leaves what was given as it was."""
    mean, means = features.mean(0), targets.mean(0)
    return CellRows(
        rows=len(features),
        mean_features=mean,
        mean_targets=means,
        features=features - mean,
        targets=targets - means,
    )
