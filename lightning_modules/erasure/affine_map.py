"""A low-rank affine map x + U(Vᵀx) + b, which an intervention applies to latents.

Letters: n rows, d width, r rank.
"""

import dataclasses

from jaxtyping import Float64
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class AffineMap:
    """Changes x by U(Vᵀx) + b."""

    u: Float64[Tensor, "d r"]
    v: Float64[Tensor, "d r"]
    b: Float64[Tensor, " d"]

    def __call__(self, x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """The changed rows."""
        return x + (x @ self.v) @ self.u.T + self.b

    def congruent(self, square: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
        """PSPᵀ with the linear part P = I + UVᵀ: the products of the changed features."""
        seen = square @ self.v
        inner = self.u @ (self.v.T @ seen) @ self.u.T
        return square + self.u @ seen.T + seen @ self.u.T + inner

    def variance_of_change(self, covariance: Float64[Tensor, "d d"]) -> float:
        """The mean squared length of the change, for centred latents with this covariance."""
        inner = self.v.T @ covariance @ self.v
        return float(((self.u @ inner) * self.u).sum())


def around_mean(
    u: Float64[Tensor, "d r"], v: Float64[Tensor, "d r"], mean: Float64[Tensor, " d"]
) -> AffineMap:
    """The map that leaves the mean where it is."""
    return AffineMap(u=u, v=v, b=-u @ (v.T @ mean))
