"""Action chunks in the units that FAST reads: percentiles to -1 and 1, degenerate ones refused.

Letters: n chunks; h horizon; a action dimensions.
"""

import numpy as np
from jaxtyping import Float, Float64

from jax_bridge.policies.normalisation import FieldStatistics, normalise

KIND = "quantile"


def normalised_chunks(
    chunks: Float[np.ndarray, "n h a"], statistics: FieldStatistics
) -> Float64[np.ndarray, "n h a"]:
    """Robot units to FAST's.

    A dimension that never moves becomes -1 everywhere. One that moves although its percentiles
    are equal would become millions, and is refused.

    Raises:
        ValueError: naming the dimension whose q01 and q99 are equal, or if dimensions are missing.
    """
    low, high = statistics.pair(KIND)
    width = chunks.shape[2]
    for dim in np.flatnonzero(low[:width] == high[:width]):
        values = chunks[..., dim]
        if (values != low[dim]).any():
            far = values.flat[np.abs(values - low[dim]).argmax()]
            raise ValueError(
                f"`norm_stats` must tell q01 and q99 of {statistics.name} apart in dimension "
                f"{dim}, but both are {low[dim]:g} while the data reach {far:g}. "
                "`vla-lens norm-stats` writes the full range of such dimensions."
            )
    return np.asarray(normalise(chunks, statistics, KIND), np.float64)
