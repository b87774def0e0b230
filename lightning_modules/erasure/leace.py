"""LEACE: the smallest affine change after which no linear probe can find the concept.

Letters: d width, k classes or dimensions, r rank.

Source: Belrose et al., LEACE: Perfect Linear Concept Erasure in Closed Form (2023), theorem 4.3.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from lightning_modules.erasure.affine_map import AffineMap, around_mean

SMALLEST_SHARE = 1e-6
"""Directions with a smaller share of the largest singular value are rounding, not the concept."""


def shrunk_covariance(covariance: Float64[Tensor, "d d"], rows: int) -> Float64[Tensor, "d d"]:
    """The covariance, pulled towards a multiple of the identity as far as few rows ask for it.

    However much it is pulled, the concept is erased; but with fewer rows than features the plain
    one would erase along directions that the rows cannot know.

    Args:
        covariance: of the rows, divided by their number.
        rows: how many there were.

    Source: Bodnar, Gupta & Parolya (2014), On the Strong Convergence of the Optimal Linear
    Shrinkage Estimator for Large Dimensional Covariance Matrix.
    """
    size = len(covariance)
    trace = covariance.trace()
    middle = trace / size
    spread = covariance.square().sum() - size * middle**2
    noise = trace**2 / rows
    kept = 1 - (noise / spread).clamp(max=1.0) if spread > 0 else torch.zeros_like(trace)
    pulled = kept * covariance
    pulled.diagonal().add_((1 - kept) * middle)
    return pulled


def leading(matrix: Float64[Tensor, "d k"]) -> Float64[Tensor, "d r"]:
    """An orthonormal basis of what the columns span, without what is rounding."""
    left, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, sizes > SMALLEST_SHARE * sizes.max().clamp(min=1e-300)]


def leace(
    covariance: Float64[Tensor, "d d"],
    cross: Float64[Tensor, "d k"],
    mean: Float64[Tensor, " d"],
) -> AffineMap:
    """The map after which the cross-covariance with the concept is 0.

    Args:
        covariance: of the features, possibly shrunk.
        cross: covariance of features and concept.
        mean: of the features.
    """
    values, vectors = torch.linalg.eigh(covariance)
    used = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(used, 1 / root.clamp(min=1e-300), torch.zeros_like(root))
    whitened = leading((vectors * inverse) @ (vectors.T @ cross))
    back = (vectors * torch.where(used, root, torch.zeros_like(root))) @ (vectors.T @ whitened)
    into = (vectors * inverse) @ (vectors.T @ whitened)
    return around_mean(-back, into, mean)
