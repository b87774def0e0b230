"""A bounded sample of a stream that depends neither on its order nor on how it was cut.

Every row has a random number that is a function of the seed and of its row number alone; the rows
with the smallest ones are kept. Samples of several processes merge into the sample of all.

Letters: n rows, c cells, d dimensions.
"""

import numpy as np
from jaxtyping import Float32, Int64

from jax_bridge.shards.stable_hash import mix


class KeptVectors:
    """At most `most` vectors with their row numbers and episodes.

    Args:
        most: how many.
        seed: of the choice.
    """

    def __init__(self, most: int, seed: int = 0) -> None:
        self.most, self.seed = most, seed
        self.rows: Int64[np.ndarray, " n"] = np.empty(0, np.int64)
        self.units: Int64[np.ndarray, " n"] = np.empty(0, np.int64)
        self.vectors: Float32[np.ndarray, "n c d"] | None = None

    def update(
        self,
        vectors: Float32[np.ndarray, "n c d"],
        rows: Int64[np.ndarray, " n"],
        units: Int64[np.ndarray, " n"],
    ) -> None:
        """Offers rows; each row number must come once."""
        if self.vectors is not None and len(self.rows) == self.most:
            self._replace(vectors, rows, units)
            return
        if self.vectors is not None:
            vectors = np.concatenate([self.vectors, vectors])
            rows = np.concatenate([self.rows, rows])
            units = np.concatenate([self.units, units])
        order = np.argsort(mix(rows, self.seed), kind="stable")[: self.most]
        self.vectors, self.rows, self.units = vectors[order], rows[order], units[order]

    def _replace(
        self,
        vectors: Float32[np.ndarray, "n c d"],
        rows: Int64[np.ndarray, " n"],
        units: Int64[np.ndarray, " n"],
    ) -> None:
        """Puts those with smaller numbers in the place of those with larger ones."""
        assert self.vectors is not None
        numbers = mix(np.concatenate([self.rows, rows]), self.seed)
        chosen = np.argsort(numbers, kind="stable")[: self.most]
        came = chosen[chosen >= self.most] - self.most
        gone = np.setdiff1d(np.arange(self.most), chosen)
        self.vectors[gone], self.rows[gone], self.units[gone] = (
            vectors[came],
            rows[came],
            units[came],
        )

    def merge(self, other: "KeptVectors") -> None:
        """Takes what another process has kept; the result is in the order of the row numbers."""
        if other.vectors is not None:
            self.update(other.vectors, other.rows, other.units)
        self.sort()

    def sort(self) -> None:
        """Puts what is kept in the order of the row numbers."""
        if self.vectors is None:
            return
        order = np.argsort(self.rows)
        self.vectors = self.vectors[order]
        self.rows, self.units = self.rows[order], self.units[order]

    def by_cell(self) -> list[Float32[np.ndarray, "n _d"]]:
        """What is kept of each cell."""
        return [] if self.vectors is None else list(np.moveaxis(self.vectors, 1, 0))
