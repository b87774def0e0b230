"""Both sides' vectors as points on a page: PCA, t-SNE, UMAP.

Letters: n pooled rows, k principal directions.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from lightning_modules.comparison.joint import missing

KINDS: tuple[str, ...] = ("pca", "tsne", "umap")
PACKAGES: dict[str, str] = {"tsne": "openTSNE", "umap": "umap"}
FEWEST = 12
"""Points; t-SNE and UMAP look at neighbours."""
DIRECTIONS = 50
"""Principal directions that they are given."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuses kinds that are not known.

    Raises:
        ValueError: if there is one.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(
            f"`--embeddings` must be words of {', '.join(KINDS)}, but got {', '.join(unknown)}."
        )


def embeddings(
    coordinates: Float64[np.ndarray, "n k"], kinds: Sequence[str], seed: int
) -> Iterator[tuple[str, Float64[np.ndarray, "n 2"] | str]]:
    """Yields each kind with its points, or why there are none."""
    points = coordinates[:, :DIRECTIONS]
    for kind in kinds:
        why = missing(PACKAGES[kind]) if kind in PACKAGES else ""
        if not why and (len(points) < FEWEST or points.shape[1] < 2):
            why = f"it needs {FEWEST} vectors of 2 dimensions or more"
        yield kind, why or EMBED[kind](points, seed)


def _pca(points: Float64[np.ndarray, "n k"], seed: int) -> Float64[np.ndarray, "n 2"]:
    return points[:, :2]


def _tsne(points: Float64[np.ndarray, "n k"], seed: int) -> Float64[np.ndarray, "n 2"]:
    from openTSNE import TSNE

    perplexity = min(30, (len(points) - 1) // 3)
    return np.asarray(TSNE(perplexity=perplexity, random_state=seed).fit(points))


def _umap(points: Float64[np.ndarray, "n k"], seed: int) -> Float64[np.ndarray, "n 2"]:
    with warnings.catch_warnings():
        # It warns that Tensorflow is not there, and that a seed means one thread.
        warnings.simplefilter("ignore")
        from umap import UMAP

        reducer = UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed)
        return np.asarray(reducer.fit_transform(points), np.float64)


EMBED = {"pca": _pca, "tsne": _tsne, "umap": _umap}
