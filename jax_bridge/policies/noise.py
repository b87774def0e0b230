"""Where the sampler starts: noise that depends on a seed and on the name of the call alone.

Letters: h action horizon; d dimensions of the model's actions.
"""

import zlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float32

_WORD = 2**32
"""What a jax key can be folded with: whole numbers below this."""


def call_noise(
    seed: int, noise_key: Sequence[int | str], *, horizon: int, dims: int
) -> Float32[np.ndarray, "{horizon} {dims}"]:
    """Standard normal noise of one policy call.

    Args:
        seed: of the whole run.
        noise_key: names the call; words and numbers are folded in one by one, so that every
            process draws the same noise for the same call, in whatever order calls come.
        horizon: h.
        dims: d.
    """
    key = jax.random.key(seed)
    for part in noise_key:
        key = jax.random.fold_in(key, _folded(part))
    return np.asarray(jax.random.normal(key, (horizon, dims), dtype="float32"))


def _folded(part: int | str) -> int:
    """A number for a part of the key: itself if it fits, else its checksum."""
    if isinstance(part, str):
        return zlib.crc32(part.encode("utf-8", errors="replace"))
    return part if 0 <= part < _WORD else zlib.crc32(str(part).encode())
