"""How far latents move away from the episode's first step.

Letters: e episodes, s steps, c cells, d width.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64


def drift(
    latents: Float32[np.ndarray, "e s c d"], there: Bool[np.ndarray, "e s"]
) -> tuple[Float64[np.ndarray, "e s c"], Float64[np.ndarray, "e s c"]]:
    """Cosine similarity and L2 distance to the first step; NaN where there is no sample."""
    first = latents[np.arange(len(latents)), there.argmax(1)][:, None]
    distance = np.linalg.norm((latents - first).astype(np.float64), axis=-1)
    cosine = cosines(latents, first)
    gone = ~there[..., None]
    return np.where(gone, np.nan, cosine), np.where(gone, np.nan, distance)


def cosines(
    one: Float[np.ndarray, "*b d"], two: Float[np.ndarray, "*#b d"]
) -> Float64[np.ndarray, "*b"]:
    """Cosine similarity along the last axis; NaN where a vector is zero."""
    inner = np.einsum("...d,...d->...", one, two, dtype=np.float64)
    size = np.linalg.norm(one.astype(np.float64), axis=-1) * np.linalg.norm(
        two.astype(np.float64), axis=-1
    )
    return np.where(size > 0, inner / np.where(size > 0, size, 1), np.nan)
