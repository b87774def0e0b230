"""Readings of the instruction from latents of episodes that the probe has never seen.

A ridge regression a fold, in closed form, from sums by fold: what a fold is trained on is the total
minus itself. The strength is chosen on the fold after it, with that one left out too.

Letters: n samples, c cells, d width, k dimensions of the embedding, f folds.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

STRENGTHS: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""What is added to the diagonal of the features' correlation matrix."""


class FoldRidge:
    """Sums by fold, then one probe a fold and cell."""

    def __init__(self, folds: int, cells: int, width: int, size: int) -> None:
        self.folds = folds
        self.count = np.zeros(folds)
        self.x = np.zeros((folds, cells, width))
        self.y = np.zeros((folds, size))
        self.xx = np.zeros((folds, cells, width, width))
        self.xy = np.zeros((folds, cells, width, size))
        self.yy = np.zeros(folds)
        self._shift: np.ndarray | None = None

    def add(
        self,
        features: Float[np.ndarray, "n c d"],
        targets: Float[np.ndarray, "n k"],
        fold: Int64[np.ndarray, " n"],
    ) -> None:
        """Adds samples to the sums of their folds."""
        if self._shift is None:  # around any point near the mean, so that nothing cancels
            self._shift = features.mean(0).astype(np.float64)
        for number in np.unique(fold):
            here = fold == number
            x = (features[here] - self._shift).transpose(1, 0, 2).astype(np.float64)
            y = targets[here].astype(np.float64)
            self.count[number] += here.sum()
            self.x[number] += x.sum(1)
            self.y[number] += y.sum(0)
            self.xx[number] += x.transpose(0, 2, 1) @ x
            self.xy[number] += x.transpose(0, 2, 1) @ y
            self.yy[number] += np.square(y).sum()

    def solve(self) -> "FoldReadings":
        """One linear map a fold and cell."""
        assert self._shift is not None
        cells, width = self.x.shape[1:]
        weight = np.zeros((self.folds, cells, width, self.y.shape[1]))
        bias = np.zeros((self.folds, cells, self.y.shape[1]))
        for fold in range(self.folds):
            follower = (fold + 1) % self.folds
            for cell in range(cells):
                strength = self._strength(fold, follower, cell)
                weight[fold, cell], bias[fold, cell] = self._fit([fold], cell, (strength,))[0]
        bias = bias - np.einsum("cd,fcdk->fck", self._shift, weight)
        return FoldReadings(weight=weight, bias=bias)

    def _left(self, out: list[int], cell: int) -> tuple[Any, ...]:
        kept = np.setdiff1d(np.arange(self.folds), out)
        return tuple(
            sums[kept].sum(0)
            for sums in (self.count, self.x[:, cell], self.y, self.xx[:, cell], self.xy[:, cell])
        )

    def _fit(
        self, out: list[int], cell: int, strengths: tuple[float, ...]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        count, x, y, xx, xy = self._left(out, cell)
        mean_x, mean_y = x / count, y / count
        covariance = xx / count - np.outer(mean_x, mean_x)
        variance = np.diag(covariance)
        # What varies by less than its rounding is constant.
        varies = variance > 1e-12 * max(float(variance.max(initial=0)), 1e-300)
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
        sizes, directions = np.linalg.eigh(covariance * np.outer(scale, scale))
        turned = directions.T @ ((xy / count - np.outer(mean_x, mean_y)) * scale[:, None])
        found = []
        for strength in strengths:
            inner = turned / (np.maximum(sizes, 0) + strength)[:, None]
            weight = scale[:, None] * (directions @ inner)
            found.append((weight, mean_y - mean_x @ weight))
        return found

    def _strength(self, fold: int, follower: int, cell: int) -> float:
        if self.folds < 3:
            return 1e-1
        losses = []
        for weight, bias in self._fit([fold, follower], cell, STRENGTHS):
            x, y = self.x[follower, cell], self.y[follower]
            xx, xy = self.xx[follower, cell], self.xy[follower, cell]
            count = self.count[follower]
            said = (weight * (xx @ weight)).sum() + 2 * (x @ weight) @ bias + count * bias @ bias
            losses.append(said - 2 * ((weight * xy).sum() + bias @ y) + self.yy[follower])
        return STRENGTHS[int(np.argmin(losses))]


class FoldReadings:
    """The linear maps of every fold and cell."""

    def __init__(
        self, *, weight: Float64[np.ndarray, "f c d k"], bias: Float64[np.ndarray, "f c k"]
    ) -> None:
        self.weight = weight
        self.bias = bias

    def read(
        self, features: Float[np.ndarray, "n c d"], fold: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "n c k"]:
        """What the probe that has not seen a sample's fold reads from it."""
        found = np.empty((*features.shape[:2], self.bias.shape[-1]))
        for number in np.unique(fold):
            here = fold == number
            x = features[here].transpose(1, 0, 2).astype(np.float64)
            found[here] = (x @ self.weight[number]).transpose(1, 0, 2) + self.bias[number]
        return found
