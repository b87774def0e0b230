"""How the vectors differ as a whole: optimal transport, kernels, directions.

Letters: n pooled rows, d dimensions, k directions.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from lightning_modules.comparison.measure import Measure, Sides
from lightning_modules.comparison.pooled import Pooled

PROJECTIONS = 64
FRECHET_DIRECTIONS = 16
SUBSPACE = 8
MOST_FOR_MEDIAN = 1000


def missing(package: str) -> str:
    """Why a measure is refused where its library is not installed; nothing where it is."""
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed: pip install 'vla-lens[context]'"
    return ""


def too_few(pooled: Pooled, needed: int, what: str) -> str:
    """Why a measure is refused where a side has few vectors; nothing where it has enough."""
    sides = pooled.exchange.observed
    fewest = int(min((sides > 0).sum(), (sides < 0).sum()))
    if fewest >= needed:
        return ""
    return f"{what} needs {needed} vectors or more on each side, and there are {fewest}"


class SlicedWasserstein(Measure):
    """Wasserstein-2 along random directions. Source: Bonneel et al. (2015); POT."""

    titles: ClassVar = {"sliced": f"sliced Wasserstein-2 over {PROJECTIONS} directions (std)"}

    def __init__(self, pooled: Pooled) -> None:
        import ot

        directions = ot.sliced.get_random_projections(pooled.width, PROJECTIONS, pooled.seed)
        self._points = pooled.vectors.astype(np.float64) @ directions
        self._distance = ot.lp.wasserstein_1d

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """Where POT is not installed."""
        return missing("ot")

    def values(self, sides: Sides) -> dict[str, float]:
        """The root of the mean squared distance, as `ot.sliced_wasserstein_distance`."""
        costs = self._distance(self._points[sides > 0], self._points[sides < 0], p=2)
        return {"sliced": float(np.sqrt(np.mean(costs)))}


class Frechet(Measure):
    """Bures-Wasserstein distance of two normal distributions; POT."""

    titles: ClassVar = {
        "frechet": f"Fréchet (Bures-Wasserstein) in {FRECHET_DIRECTIONS} principal directions"
    }

    def __init__(self, pooled: Pooled) -> None:
        import ot

        self._points = pooled.coordinates[:, :FRECHET_DIRECTIONS]
        self._distance: Callable[..., Any] = ot.gaussian.bures_wasserstein_distance

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """Where a covariance could not be estimated."""
        size = 2 * min(FRECHET_DIRECTIONS, pooled.width)
        return missing("ot") or too_few(pooled, size, "a covariance matrix")

    def values(self, sides: Sides) -> dict[str, float]:
        """The distance, in the vectors' own unit."""
        a, b = self._points[sides > 0], self._points[sides < 0]
        size = a.shape[1]
        ridge = 1e-9 * np.trace(np.cov(self._points.T).reshape(size, size)) / size * np.eye(size)
        covariances = [np.cov(part.T).reshape(size, size) + ridge for part in (a, b)]
        return {"frechet": float(self._distance(a.mean(0), b.mean(0), *covariances))}


class Mmd(Measure):
    """Maximum mean discrepancy, unbiased, Gaussian kernel as wide as the median distance.

    Source: Gretton et al., A Kernel Two-Sample Test (2012), lemma 6.
    """

    titles: ClassVar = {"mmd": "MMD², Gaussian kernel of the median distance"}

    def __init__(self, pooled: Pooled) -> None:
        squares = np.diag(pooled.products)
        apart = np.maximum(squares[:, None] + squares - 2 * pooled.products, 0)
        step = max(1, len(apart) // MOST_FOR_MEDIAN)
        some = apart[::step, ::step]
        scale = float(np.median(some[np.triu_indices(len(some), 1)])) or 1.0
        self._kernel = np.exp(-apart / scale).astype(np.float32)
        np.fill_diagonal(self._kernel, 0)

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """With a single vector on a side."""
        return too_few(pooled, 2, "it")

    def values(self, sides: Sides) -> dict[str, float]:
        """May be below 0 where there is no difference."""
        a, b = (sides > 0).astype(np.float32), (sides < 0).astype(np.float32)
        m, n = float(a.sum()), float(b.sum())
        of_a, of_b = self._kernel @ a, self._kernel @ b
        within = float(a @ of_a) / (m * (m - 1)) + float(b @ of_b) / (n * (n - 1))
        return {"mmd": within - 2 * float(a @ of_b) / (m * n)}


class PrincipalAngles(Measure):
    """Whether both vary in the same directions."""

    titles: ClassVar = {"angles": f"1 - overlap of the first {SUBSPACE} principal directions"}

    def __init__(self, pooled: Pooled) -> None:
        self._points = pooled.coordinates

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """Where directions could not be estimated, or all are taken."""
        if pooled.width <= SUBSPACE:
            return f"it needs more than {SUBSPACE} dimensions, and there are {pooled.width}"
        return too_few(pooled, 2 * SUBSPACE, "a subspace")

    def values(self, sides: Sides) -> dict[str, float]:
        """1 - the mean squared cosine of the principal angles."""
        spaces = [self._space(self._points[sides == sign]) for sign in (1, -1)]
        angles = linalg.subspace_angles(*spaces)
        return {"angles": float(1 - np.mean(np.cos(angles) ** 2))}

    def _space(self, points: Float64[np.ndarray, "_n k"]) -> Float64[np.ndarray, "k _s"]:
        centred = points - points.mean(0)
        return np.linalg.eigh(centred.T @ centred)[1][:, -SUBSPACE:]
