"""Chunks as whole-numbered frequencies: DCT over time, scaled, rounded, lowest frequency first.

Letters: n chunks; t steps of a chunk; d action dimensions; c coefficients (t * d).

Source: Pertsch et al. 2025, arXiv:2501.09747, section IV-B.
"""

import numpy as np
import scipy.fft
from jaxtyping import Float, Int64


def to_coefficients(actions: Float[np.ndarray, "n t d"], scale: float) -> Int64[np.ndarray, "n c"]:
    """Orthonormal DCT-II over time, times `scale`, rounded; all dimensions of frequency 0 first."""
    spectrum = np.asarray(scipy.fft.dct(actions.astype(np.float64), axis=1, norm="ortho"))
    return np.rint(spectrum * scale).astype(np.int64).reshape(len(actions), -1)


def from_coefficients(
    coefficients: Int64[np.ndarray, "n c"], scale: float, *, steps: int, dims: int
) -> Float[np.ndarray, "n t d"]:
    """`to_coefficients` undone, up to its rounding."""
    spectrum = coefficients.astype(np.float64).reshape(-1, steps, dims) / scale
    return np.asarray(scipy.fft.idct(spectrum, axis=1, norm="ortho"))


def rounding_bound(steps: int, scale: float) -> float:
    """The largest error that rounding can make in one action.

    Each of the `steps` coefficients is off by at most 1 / (2 scale). An action sums them with
    weights of at most sqrt(1 / t) for frequency 0 and sqrt(2 / t) for the others.
    """
    return (1 + (steps - 1) * 2**0.5) / (2 * scale * steps**0.5)
