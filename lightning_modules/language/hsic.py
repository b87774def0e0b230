"""Unbiased CKA, with what it would be without each single sample.

HSIC_1 is a U-statistic: its mean over blocks of samples is unbiased too, so memory stays bounded,
and leaving one sample out (the jackknife) gives its uncertainty. A bootstrap would draw samples
twice, and a sample resembles itself.

Letters: n samples, c cells.

Source: Song et al., Feature Selection via Dependence Maximization (2012), HSIC_1; Kornblith et al.,
Similarity of Neural Network Representations Revisited (2019); over blocks: Nguyen, Raghu &
Kornblith, Do Wide and Deep Networks Learn the Same Things? (2021).
"""

import numpy as np
from jaxtyping import Float, Float64

FEWEST = 5
"""Samples: HSIC_1 needs 4, and one is to be left out."""


def kernel(features: Float[np.ndarray, "n c d"]) -> Float64[np.ndarray, "c n n"]:
    """Inner products between samples, without those of a sample with itself."""
    centred = features - features.mean(0)
    turned = centred.transpose(1, 0, 2).astype(np.float64)
    found = turned @ turned.transpose(0, 2, 1)
    found[:, np.arange(len(features)), np.arange(len(features))] = 0
    return found


def hsic(
    one: Float64[np.ndarray, "*c n n"], two: Float64[np.ndarray, "*c n n"]
) -> Float64[np.ndarray, "*c"]:
    """HSIC_1 of two kernels with empty diagonals."""
    n = one.shape[-1]
    a, b = one.sum(-1), two.sum(-1)
    return _hsic((one * two).sum((-2, -1)), a.sum(-1), b.sum(-1), (a * b).sum(-1), n)


def hsic_without_each(
    one: Float64[np.ndarray, "*c n n"], two: Float64[np.ndarray, "*c n n"]
) -> Float64[np.ndarray, "*c n"]:
    """HSIC_1 of all samples but one, for each one."""
    n = one.shape[-1]
    a, b, both = one.sum(-1), two.sum(-1), (one * two).sum(-1)
    trace = both.sum(-1, keepdims=True) - 2 * both
    cross = (a * b).sum(-1, keepdims=True) - a * b - np.einsum("...ij,...i->...j", two, a)
    cross += both - np.einsum("...ij,...i->...j", one, b)
    return _hsic(
        trace, a.sum(-1, keepdims=True) - 2 * a, b.sum(-1, keepdims=True) - 2 * b, cross, n - 1
    )


def _hsic(
    trace: Float64[np.ndarray, "*x"],
    a: Float64[np.ndarray, "*x"],
    b: Float64[np.ndarray, "*x"],
    cross: Float64[np.ndarray, "*x"],
    n: int,
) -> Float64[np.ndarray, "*x"]:
    return (trace + a * b / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


def cka(
    between: Float64[np.ndarray, "*x"],
    one: Float64[np.ndarray, "*x"],
    two: Float64[np.ndarray, "*x"],
) -> Float64[np.ndarray, "*x"]:
    """HSIC(one, two) / sqrt(HSIC(one, one) HSIC(two, two)); NaN where a representation is constant.

    Without dependence it scatters around 0, also below.
    """
    product = one * two
    ok = (one > 0) & (two > 0)
    return np.where(ok, between / np.sqrt(np.where(ok, product, 1)), np.nan)
