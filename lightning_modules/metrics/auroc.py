"""The area under the ROC curve, one class against the rest, from integer histograms.

The scores (log-odds of a class) are rounded to one of `BINS` values, finest where the log-odds are
those of the class's share; two samples of the same value count as a tie, as scikit-learn does it.

Letters: b batch, c cells, k classes, g groups of units, r draws, v values of a score.
"""

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from lightning_modules.metrics.grid_metric import GridMetric, MetricBatch, MetricContext

BINS = 256
STEEPNESS, LIMIT = 4.0, 20.0
"""Log-odds x become asinh(STEEPNESS x), up to |x| = LIMIT: fine near 0, coarse far off."""
MOST_CLASSES = 32
"""With more classes the mean of so many areas says little and takes much memory."""
OBJECTIVES = ("cross_entropy", "lda", "bce")


def log_odds(outputs: Float[Tensor, "b c k"], objective: str) -> Float[Tensor, "b c k"]:
    """Log-odds of each class against the rest, in float64."""
    if objective == "bce":
        return outputs.double()
    log_p = F.log_softmax(outputs.double(), dim=-1)
    return log_p - torch.log(-torch.expm1(log_p.clamp(max=-1e-15)))


def score_bins(odds: Float[Tensor, "b c k"], centre: Float[Tensor, " k"]) -> Int[Tensor, "b c k"]:
    """The place of each score among `BINS` values that rise with it."""
    bent = torch.asinh(STEEPNESS * (odds - centre).clamp(-LIMIT, LIMIT))
    edge = float(np.arcsinh(STEEPNESS * LIMIT))
    return ((bent / edge + 1) / 2 * BINS).long().clamp(0, BINS - 1)


def pair_counts(
    positive: Int[np.ndarray, "k g v"], negative: Int[np.ndarray, "k g v"]
) -> Float64[np.ndarray, "k g g"]:
    """How many pairs of a positive (first group) and a negative (second group) are in order.

    Ties count half. So the area of any weighting of groups is a quotient of quadratic forms.
    """
    below = np.cumsum(negative, axis=-1, dtype=np.float64) - negative / 2
    return positive.astype(np.float64) @ below.transpose(0, 2, 1)


class Auroc(GridMetric):
    """Mean over the classes of the area under each one's ROC curve.

    Source: scikit-learn's `roc_auc_score(multi_class="ovr", average="macro")`.
    """

    names: ClassVar = ("auroc",)
    histogram: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        self.add_sum(
            "histogram", self.groups, context.cells, self.curves(context), 2, BINS,
            dtype=torch.int32,
        )  # fmt: skip

    @staticmethod
    def curves(context: MetricContext) -> int:
        """One a class; with two classes both would be the same one."""
        two = context.classifies and context.target.size == 2
        return 1 if two else context.target.size

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To classes, or several yes-or-no questions, that are not too many."""
        return context.trained_for in OBJECTIVES and context.target.size <= MOST_CLASSES

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """The histograms."""
        return context.cells * cls.curves(context) * 2 * BINS * 4

    @property
    def chance(self) -> dict[str, float | None]:
        """Scores that know nothing."""
        return {"auroc": 0.5}

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Counts the scores of samples inside and outside of each class."""
        curves = self.histogram.shape[2]
        # With one curve, the last class is the one that is asked for.
        odds = log_odds(batch.outputs, self.context.trained_for)[..., -curves:]
        bins = score_bins(odds, self._centre(curves).to(odds))
        truth = _truth(batch.targets, self.context)[:, None, -curves:].expand_as(bins)
        _, cells, _ = bins.shape
        place = group[:, None, None] * cells + torch.arange(cells, device=bins.device)[:, None]
        place = place * curves + torch.arange(curves, device=bins.device)
        flat = (place * 2 + truth) * BINS + bins
        counts = torch.ones_like(flat, dtype=torch.int32).reshape(-1)
        self.histogram.view(-1).index_add_(0, flat.reshape(-1), counts)

    def _centre(self, curves: int) -> Float[Tensor, " k"]:
        share = torch.tensor(self.context.target.trivial[-curves:]).clamp(1e-3, 1 - 1e-3)
        return torch.logit(share) if self.context.classifies else torch.zeros_like(share)

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """The mean over the classes that a draw holds and that do not fill it."""
        histogram = self.histogram.cpu().numpy()
        square = (weights[:, :, None] * weights[:, None]).reshape(-1, weights.shape[1] ** 2).T
        areas = np.full((histogram.shape[1], len(weights)), np.nan)
        for cell in range(histogram.shape[1]):
            sides = np.moveaxis(histogram[:, cell], 0, 2)
            curves = _areas(weights, square, np.ascontiguousarray(sides))
            known = np.isfinite(curves)
            total = np.where(known, curves, 0).sum(0)
            areas[cell] = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
        return {"auroc": areas}


def _areas(
    weights: Float64[np.ndarray, "r g"],
    square: Float64[np.ndarray, "gg r"],
    histogram: Int[np.ndarray, "k 2 g v"],
) -> Float64[np.ndarray, "k r"]:
    """The area of each class for each weighting; `square` holds products of its weights."""
    negative, positive = histogram[:, 0], histogram[:, 1]
    ordered = pair_counts(positive, negative).reshape(len(histogram), -1) @ square
    pairs = (positive.sum(-1) @ weights.T) * (negative.sum(-1) @ weights.T)
    return np.where(pairs > 0, ordered / np.maximum(pairs, 1), np.nan)


def _truth(targets: Shaped[Tensor, "b ..."], context: MetricContext) -> Int[Tensor, "b k"]:
    if context.classifies:
        return F.one_hot(targets, context.target.size)
    return (targets.reshape(len(targets), -1) > 0.5).long()
