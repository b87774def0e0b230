"""Confusion matrices of a grid of classifiers.

Letters: b batch, c cells, k classes (true, then predicted).
"""

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torchmetrics import Metric


def confusion_counts(
    predictions: Int[Tensor, "b c"], targets: Int[Tensor, " b"], classes: int
) -> Int[Tensor, "c k k"]:
    """How often each cell said each class (last axis) where each class (middle axis) was true."""
    cells = predictions.shape[1]
    place = torch.arange(cells, device=predictions.device) * classes**2
    flat = place + targets[:, None] * classes + predictions
    counts = torch.bincount(flat.reshape(-1), minlength=cells * classes**2)
    return counts.view(cells, classes, classes)


def balanced_accuracy(confusion: Int[Tensor, "c k k"]) -> Float64[Tensor, " c"]:
    """The mean over the classes that occur of the share that was recognised.

    Source: scikit-learn's `balanced_accuracy_score`.
    """
    truth = confusion.sum(-1).double()
    recall = confusion.diagonal(dim1=-2, dim2=-1).double() / truth
    return torch.nanmean(recall, dim=-1)


class GridConfusion(Metric):
    """Accumulates the confusion matrix of every cell, in exact integers."""

    full_state_update = False
    counts: Tensor

    def __init__(self, cells: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        zeros = torch.zeros(cells, classes, classes, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, predictions: Int[Tensor, "b c"], targets: Int[Tensor, " b"]) -> None:
        """Adds one batch."""
        self.counts += confusion_counts(predictions, targets, self.classes)

    def compute(self) -> Int[Tensor, "c k k"]:
        """The matrices: true class, then predicted class."""
        return self.counts
