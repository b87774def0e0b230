"""Which strength of the penalty each cell uses: the one that predicts held-out units best.

Letters: c cells, l strengths.
"""

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def best_strength(losses: Float64[Tensor, "c l"]) -> Int[Tensor, " c"]:
    """The place of the lowest loss on the validation split; of equal ones the strongest penalty.

    Args:
        losses: mean held-out loss of each cell with each strength, weakest first.
    """
    backwards = losses.nan_to_num(nan=torch.inf).flip(-1)
    return losses.shape[-1] - 1 - backwards.argmin(-1)


def at_the_edge(chosen: Int[Tensor, " c"], strengths: int) -> int:
    """How many cells chose the weakest or the strongest penalty, where a wider grid may help."""
    return int(((chosen == 0) | (chosen == strengths - 1)).sum())
