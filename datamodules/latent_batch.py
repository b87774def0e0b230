"""One batch of latents.

Letters: b batch, c cells and d width of one source, k size of a vector target.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class LatentBatch(NamedTuple):
    """Features of every cell, what is to be predicted, and where the samples come from."""

    features: Sequence[Float[Tensor, "b _c _d"]]
    """Of each source, in the type in which they were stored (bfloat16 or float32), not
    normalised."""
    targets: Int[Tensor, " b"] | Float[Tensor, "b k"]
    """Class numbers or vectors."""
    control_targets: Int[Tensor, " b"] | Float[Tensor, "b k"]
    """Those of the control task: of another episode."""
    clusters: Int[Tensor, " b"]
    """Which episode, as a place in `LatentDataModule.clusters`."""
    rows: Int[Tensor, " b"]
    """Row numbers in the data set's index; `LatentDataModule.keys(rows)` gives the keys."""
    task_id: Int[Tensor, " b"]
    episode: Int[Tensor, " b"]
    timestep: Int[Tensor, " b"]
    """Environment step inside the episode."""
