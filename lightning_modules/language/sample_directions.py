"""Main directions among samples, of all episodes and with some of them left out.

Letters: n samples, m of them, d width, k components, p directions, e episodes, h hands.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.linalg import eigh

from lightning_modules.language.bands import FEWEST

DIRECTIONS = 5
"""The principal directions whose angles are compared."""
COMPONENTS = 64
"""What is kept of the latents to find the directions again without some episodes: leaving a
twentieth of the samples out hardly lets what stood behind these become one of the first."""
HANDS = 20
"""Hands of whole episodes that are left out in turn."""


def without_step(
    features: Float64[np.ndarray, "n d"], step: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n d"]:
    """Features without the mean of their step: both experts follow the clock, and do not agree."""
    _, place = np.unique(step, return_inverse=True)
    member = (place == np.arange(place.max(initial=-1) + 1)[:, None]).astype(np.float64)
    return features - ((member @ features) / member.sum(1, keepdims=True))[place]


def left_out_in_turn(
    row: Int64[np.ndarray, " n"], *, seed: int, hands: int = HANDS
) -> list[Bool[np.ndarray, " n"]]:
    """The samples that are left without each hand of episodes; no hands of fewer than six."""
    episodes = int(row.max(initial=-1)) + 1
    if episodes < FEWEST:
        return []
    hand = np.random.default_rng(seed).permutation(episodes) % min(hands, episodes)
    return [hand[row] != number for number in range(min(hands, episodes))]


class SampleDirections:
    """What varies most among samples, apart from the step.

    Args:
        features: of the samples.
        step: of each.
    """

    def __init__(self, features: Float[np.ndarray, "n d"], step: Int64[np.ndarray, " n"]) -> None:
        moved = without_step(features.astype(np.float64), step)
        wide = moved.shape[1] >= len(moved)
        inner = moved @ moved.T if wide else moved.T @ moved
        n = len(inner)
        sizes, vectors = eigh(inner, subset_by_index=(max(0, n - COMPONENTS), n - 1))
        lengths = np.sqrt(np.maximum(sizes, 0))
        self._points: Float64[np.ndarray, "n k"] = vectors * lengths if wide else moved @ vectors
        self._step = step

    def directions(
        self, kept: Bool[np.ndarray, " n"] | slice = slice(None)
    ) -> Float64[np.ndarray, "m p"]:
        """Orthonormal directions among some of the samples."""
        points = without_step(self._points[kept], self._step[kept])
        sizes, vectors = eigh(points.T @ points)
        sizes, vectors = sizes[-DIRECTIONS:], vectors[:, -DIRECTIONS:]
        there = sizes > 1e-10 * max(float(sizes[-1]), 1e-300)
        return points @ vectors[:, there] / np.sqrt(sizes[there])


def mean_angle(products: Float64[np.ndarray, "*sets p _q"]) -> Float64[np.ndarray, "*sets"]:
    """The mean principal angle in degrees; NaN where one of both has no direction.

    Args:
        products: of two sets of orthonormal directions, the first one transposed.

    Source: Björck & Golub (1973); on samples, as in SVCCA (Raghu et al., 2017), since experts
    differ in width.
    """
    if 0 in products.shape[-2:]:
        return np.full(products.shape[:-2], np.nan)
    cosines = np.linalg.svd(products, compute_uv=False)
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, 0, 1))).mean(-1))
