"""What a measure is: numbers that grow with the difference between two sides.

Letters: n pooled rows, d dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int8

from lightning_modules.comparison.pooled import Pooled

Sides = Int8[np.ndarray, " n"]
"""+1 in A, -1 in B, 0 left out."""


class Measure(ABC):
    """One or more numbers of the same kind.

    Args:
        pooled: both sides' vectors; whatever does not depend on the sides is made of them once.
    """

    titles: ClassVar[Mapping[str, str]]
    """The numbers' names, and what they are."""

    @abstractmethod
    def __init__(self, pooled: Pooled) -> None: ...

    @classmethod
    def refusal(cls, pooled: Pooled) -> str:
        """Why it cannot be taken of these vectors; nothing where it can."""
        return ""

    @abstractmethod
    def values(self, sides: Sides) -> dict[str, float]:
        """The numbers."""

    def by_dimension(self, sides: Sides) -> dict[str, Float64[np.ndarray, " d"]]:
        """Columns of the table of dimensions; none where it has no dimensions."""
        return {}
