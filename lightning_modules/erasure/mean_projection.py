"""Projections: along the classes' means, and along random directions for comparison.

Letters: d width, k classes or dimensions.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from lightning_modules.erasure.affine_map import AffineMap, around_mean
from lightning_modules.erasure.leace import leading


def mean_projection(cross: Float64[Tensor, "d k"], mean: Float64[Tensor, " d"]) -> AffineMap:
    """Removes, at right angles, what the class means (or a vector's covariances) span.

    Args:
        cross: covariance of features and concept.
        mean: of the features.
    """
    basis = leading(cross)
    return around_mean(-basis, basis, mean)


def random_projection(
    like: AffineMap, covariance: Float64[Tensor, "d d"], mean: Float64[Tensor, " d"], *, seed: int
) -> AffineMap:
    """Changes as many random directions by as much as another map changes its own.

    What this does to a policy's actions is what any change of that size does.

    Args:
        like: the map to compare with.
        covariance: of the features.
        mean: of the features.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(like.u.shape, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(drawn).Q.to(mean.device)
    plain = around_mean(-basis, basis, mean)
    own, wanted = plain.variance_of_change(covariance), like.variance_of_change(covariance)
    size = (wanted / own) ** 0.5 if own > 0 else 0.0
    return around_mean(-size * basis, basis, mean)
