"""Actions relative to the robot's state, for checkpoints that were trained on them.

Source: openpi, `src/openpi/transforms.py` (DeltaActions, AbsoluteActions).
Letters: h action horizon; a dimensions of an action; s of a state.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def to_absolute(
    actions: Float[np.ndarray, "h a"], state: Float[np.ndarray, " s"], mask: Sequence[bool]
) -> Float[np.ndarray, "h a"]:
    """Adds the state to the action dimensions that `mask` names; the others stay.

    Args:
        actions: relative to `state` where `mask` is true.
        state: in robot units, not normalised.
        mask: one entry a dimension, from the first; dimensions beyond it stay.
    """
    return _shifted(actions, state, mask, 1.0)


def to_delta(
    actions: Float[np.ndarray, "h a"], state: Float[np.ndarray, " s"], mask: Sequence[bool]
) -> Float[np.ndarray, "h a"]:
    """Takes the state away from the action dimensions that `mask` names: `to_absolute` undone."""
    return _shifted(actions, state, mask, -1.0)


def _shifted(
    actions: np.ndarray, state: np.ndarray, mask: Sequence[bool], sign: float
) -> np.ndarray:
    size = len(mask)
    if size > actions.shape[-1] or size > state.shape[-1]:
        raise ValueError(
            f"`mask` must not be longer than actions ({actions.shape[-1]}) and state "
            f"({state.shape[-1]}), but got {size} entries."
        )
    result = actions.copy()
    result[..., :size] += sign * np.where(np.asarray(mask), state[..., :size], 0.0)
    return result
