"""The contract of a text encoder.

Letters: m texts, v numbers a text.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors, as it is: not centred, not scaled."""

    @property
    def digest(self) -> str:
        """Of the files that the vectors depend on; empty where there are none."""
        ...

    def fit(self, training: Sequence[str]) -> None:
        """Learns what it needs from the distinct training texts; a pretrained one learns nothing.

        Raises:
            ValueError: if these texts cannot be told apart.
        """
        ...

    def embed(self, texts: Sequence[str]) -> Float64[np.ndarray, "m v"]:
        """One vector a text."""
        ...
