"""Ridge regression, and ridge classification by one-hot targets.

Letters: d width, k classes or dimensions, l strengths.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from lightning_modules.closed_form.cell_sums import CellSums

STRENGTHS: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""In units of a feature's variance (1, as features are standardised) times the number of rows:
scikit-learn's `alpha` is strength times rows."""


def ridge_path(
    sums: CellSums, strengths: Sequence[float]
) -> tuple[Float64[Tensor, "l d k"], Float64[Tensor, "l k"]]:
    """Weights and biases that minimise |Y - XW - b|² + strength n |W|², for every strength.

    Equal to scikit-learn's `Ridge(alpha=strength * n)`, fitted to the same standardised features.

    Raises:
        ValueError: if a strength is too small for the features.
    """
    weights = sums.ridge([strength * sums.rows for strength in strengths])
    return weights, sums.mean_targets - torch.einsum("d,ldk->lk", sums.mean_features, weights)
