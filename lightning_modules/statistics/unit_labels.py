"""The labels of units, so that units can exchange them.

Letters: n rows, u units, a different labels, k classes or dimensions.
"""

import dataclasses

import numpy as np
from jaxtyping import Int64, Shaped


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitLabels:
    """Units whose rows all carry one label."""

    code: Int64[np.ndarray, " u"]
    """The place of each unit's label among the different ones."""
    labels: Shaped[np.ndarray, "a ..."]
    """The different labels: class numbers or vectors."""


def unit_labels(
    values: Shaped[np.ndarray, "n ..."], units: Int64[np.ndarray, " n"]
) -> UnitLabels | None:
    """The label of each unit, or None where labels change within a unit.

    Args:
        values: the label of each row: class numbers or vectors.
        units: the unit of each row, numbered 0, 1, ... without gaps.
    """
    labels, code = np.unique(values, axis=0, return_inverse=True)
    first = np.zeros(int(units.max()) + 1, np.int64)
    first[units] = code
    if not np.array_equal(first[units], code):
        return None
    return UnitLabels(code=first, labels=labels)
