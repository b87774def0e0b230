"""Both sides' vectors together, and what several measures need of them, made once.

Nothing here depends on which side a row belongs to: so it serves every exchange.

Letters: n pooled rows, d dimensions, k directions.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lightning_modules.comparison.exchange import Exchange

DIRECTIONS = 64
"""Principal directions of the pooled vectors that are kept."""


class Pooled:
    """The vectors of A, then those of B, each dimension centred and in its pooled std.

    Args:
        vectors: as captured.
        exchange: whose episodes they are.
        seed: of projections and folds.
    """

    def __init__(
        self, vectors: Float32[np.ndarray, "n d"], exchange: Exchange, seed: int = 0
    ) -> None:
        self.exchange, self.seed = exchange, seed
        self.unit: Int64[np.ndarray, " n"] = exchange.unit
        self.mean: Float64[np.ndarray, " d"] = vectors.mean(axis=0, dtype=np.float64)
        std = vectors.std(axis=0, dtype=np.float64)
        self.varies: Bool[np.ndarray, " d"] = std > 1e-6 * np.maximum(np.abs(self.mean), 1e-12)
        self.std: Float64[np.ndarray, " d"] = np.where(self.varies, std, 1.0)
        scaled = ((vectors - self.mean) / self.std).astype(np.float32)
        scaled[:, ~self.varies] = 0
        self.vectors: Float32[np.ndarray, "n d"] = scaled
        self.raw = vectors

    @property
    def width(self) -> int:
        """Dimensions."""
        return self.vectors.shape[1]

    @functools.cached_property
    def products(self) -> Float64[np.ndarray, "n n"]:
        """Inner products of all pairs."""
        points = self.vectors.astype(np.float64)
        return points @ points.T

    @functools.cached_property
    def coordinates(self) -> Float64[np.ndarray, "n k"]:
        """Along the first principal directions of the vectors as captured, not scaled."""
        centred = self.raw - self.mean
        if len(centred) < self.width:
            values, vectors = np.linalg.eigh(centred @ centred.T)
            values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
            return (vectors * np.sqrt(values))[:, :DIRECTIONS]
        return centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :DIRECTIONS]
