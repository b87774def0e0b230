"""The space in which instructions differ: centred, turned, and optionally whitened.

Sentence embeddings share most of their direction: their cosine is near 1 whatever was said, and a
probe that always says the mean looks perfect. So the mean of the training instructions is taken
away before anything is compared.

Letters: m texts, v numbers a text, k dimensions that are kept.
"""

import numpy as np
from jaxtyping import Float, Float64

MOST_DIMENSIONS = 64
SMALLEST_SHARE = 1e-6
"""Directions with a smaller share of the largest singular value are rounding, not words."""


def mean_pairwise_cosine(vectors: Float[np.ndarray, "m v"]) -> float:
    """Mean cosine similarity of all pairs of different rows."""
    m = len(vectors)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    total = float(np.square(unit.sum(0)).sum() - np.square(unit).sum())
    return total / (m * (m - 1)) if m > 1 else 1.0


class TextSpace:
    """Learns mean and directions from the embeddings of distinct training texts alone.

    Source: latent semantic analysis, Deerwester et al. (1990); PCA whitening.

    Args:
        training: one row a text.
        whiten: whether every direction gets the same variance.
    """

    def __init__(self, training: Float64[np.ndarray, "m v"], *, whiten: bool = False) -> None:
        self.mean = training.mean(0)
        _, sizes, directions = np.linalg.svd(training - self.mean, full_matrices=False)
        keep = sizes > SMALLEST_SHARE * max(sizes[0], 1e-12)
        directions, sizes = directions[keep][:MOST_DIMENSIONS], sizes[keep][:MOST_DIMENSIONS]
        # The sign of a singular vector is arbitrary; this one does not depend on the machine.
        largest = np.abs(directions).argmax(1)
        signs = np.sign(directions[np.arange(len(directions)), largest, None])
        scale = len(training) ** 0.5 / sizes[:, None] if whiten else 1.0
        self.directions = directions * signs * scale

    def project(self, vectors: Float64[np.ndarray, "m v"]) -> Float64[np.ndarray, "m k"]:
        """Coordinates, scaled to a length of sqrt(k): one dimension counts 1 on average."""
        inside = (vectors - self.mean) @ self.directions.T
        length = np.maximum(np.linalg.norm(inside, axis=1, keepdims=True), 1e-12)
        return inside / length * self.directions.shape[0] ** 0.5
