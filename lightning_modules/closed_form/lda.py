"""Linear discriminant analysis with a shrunk covariance.

Letters: d width, k classes, l shrinkages.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from lightning_modules.closed_form.cell_sums import CellSums, class_offsets

SHRINKAGES: tuple[float, ...] = (1e-3, 1e-2, 0.1, 0.3, 0.6, 0.9)
"""Between 0 (the covariance as it is) and 1 (a multiple of the identity), both left out."""

NEVER = -1e4
"""The score of a class without a training row: never said, but finite."""


def lda_path(
    sums: CellSums, shrinkages: Sequence[float]
) -> tuple[Float64[Tensor, "l d k"], Float64[Tensor, "l k"]]:
    """Weights and biases of the discriminants, for every shrinkage.

    The covariance within the classes S becomes (1 - s) S + s trace(S)/d I; priors are the classes'
    shares. The scores differ from those of scikit-learn's `LinearDiscriminantAnalysis(
    solver="lsqr", shrinkage=s)` by the same number for all classes, so probabilities are equal.

    Args:
        sums: of one cell, with one column of the targets a class.
        shrinkages: between 0 and 1.

    Raises:
        ValueError: if a shrinkage is too small for the features.
    """
    counts = sums.mean_targets * sums.rows
    variance = sums.within_trace() / (sums.rows * len(sums.mean_features)) or 1.0
    shifts = [sums.rows * variance * s / (1 - s) for s in shrinkages]
    scale = torch.tensor([sums.rows / (1 - s) for s in shrinkages], dtype=torch.float64)
    weights = sums.within(shifts) * scale.to(counts.device)[:, None, None]
    offsets = class_offsets(sums.cross, counts)
    middle = sums.mean_features[:, None] + offsets / 2
    bias = torch.log(sums.mean_targets) - torch.einsum("dk,ldk->lk", middle, weights)
    return weights, torch.where(counts > 0, bias, torch.full_like(bias, NEVER))
