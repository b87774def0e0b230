"""Which row of a target's table a vector is nearest to, as retrieval counts it.

Letters: b batch, c cells, k dimensions, m rows.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Int
from torch import Tensor

from datamodules.target_spec import TargetSpec
from lightning_modules.metrics.sample_means import SAME


def row_similarities(vectors: Float[Tensor, "*b k"], target: TargetSpec) -> Float[Tensor, "*b m"]:
    """Cosine to every row, both centred on the mean of the training targets.

    Raises:
        ValueError: if the target has no table.
    """
    if not target.table:
        raise ValueError(
            f"`target` must have classes or a table to choose from, but got {target.name}, whose "
            "values are vectors of any kind. Use the outputs."
        )
    mean = vectors.new_tensor(target.trivial)
    rows = F.normalize(vectors.new_tensor(target.table) - mean, dim=-1)
    return F.normalize(vectors - mean, dim=-1) @ rows.T


def nearest_row(vectors: Float[Tensor, "*b k"], target: TargetSpec) -> Int[Tensor, "*b"]:
    """The place of the nearest row.

    Raises:
        ValueError: if the target has no table.
    """
    return row_similarities(vectors, target).argmax(-1)


def nearest_names(
    vectors: Float[Tensor, "b c k"], truth: list[str], target: TargetSpec
) -> list[list[str]]:
    """What the nearest row of each cell stands for.

    Of rows in one direction (instructions of words that were never trained) the true one is named
    where it is among them.

    Args:
        vectors: what cells say.
        truth: what each sample truly is.
        target: with a table.
    """
    near, names = row_similarities(vectors, target), target.table_names
    tied = near >= near.amax(-1, keepdim=True) - SAME
    places = {name: place for place, name in enumerate(names)}
    found = []
    for sample, true in enumerate(truth):
        own = places.get(true)
        if own is not None:
            near[sample, tied[sample, :, own], own] = torch.inf
        found.append([names[row] for row in near[sample].argmax(-1).tolist()])
    return found
