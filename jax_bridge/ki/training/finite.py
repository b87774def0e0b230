"""The guard against NaN: it stops the run and says where to look."""

import math
from collections.abc import Sequence

from jax_bridge.ki.training.step_record import StepRecord

SHOWN_KEYS = 8


class NotFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite."""


def check_finite(record: StepRecord, *, step: int, keys: Sequence[str], saved: int | None) -> None:
    """Raises if a step's losses or gradients are no numbers.

    Args:
        record: what the step told.
        step: its number.
        keys: samples of its batch (of this process).
        saved: the last step that is saved.

    Raises:
        NotFiniteError: naming what is not finite, the step and the samples.
    """
    bad = [name for name, value in record.named() if not math.isfinite(value)]
    if not bad:
        return
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    kept = "nothing is saved yet" if saved is None else f"the checkpoint of step {saved} is kept"
    raise NotFiniteError(
        f"`loss` must be finite, but at step {step} {', '.join(bad)} "
        f"{'is' if len(bad) == 1 else 'are'} not; {kept}. Look at the samples of its batch "
        f"({', '.join(keys[:SHOWN_KEYS])}{more}), or lower optimiser.peak_learning_rate."
    )
