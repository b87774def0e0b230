"""What one forward gave: values by field, perhaps still on their way to the CPU."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from datamodules.frames.frame_batch import FrameSample
from jax_bridge.shards import FieldSpec

AXES_BY_RANK: dict[int, tuple[str, ...]] = {
    1: ("width",),
    2: ("token", "width"),
    3: ("frame", "token", "width"),
    4: ("head", "frame", "token", "width"),
}
"""What the axes behind the batch mean: a RoboVLMs head receives frames x action tokens x width."""


@runtime_checkable
class Awaited(Protocol):
    """What can be waited for, as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Waits until it has passed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class CapturedBatch:
    """Rows of a batch and what was caught of them."""

    values: dict[str, Tensor]
    """By field, [b, ...]."""
    samples: Sequence[FrameSample]
    ready: tuple[Awaited, ...] = ()
    """They have passed when the copies to the CPU are done."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The values, once they are there; bfloat16 as ml_dtypes'."""
        for event in self.ready:
            event.synchronize()
        return {name: _as_array(value) for name, value in self.values.items()}


def _as_array(value: Tensor) -> np.ndarray:
    if value.dtype == torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.contiguous().numpy()


def field_specs(arrays: dict[str, np.ndarray]) -> dict[str, FieldSpec]:
    """Declares the fields of a data set by its first batch.

    Raises:
        ValueError: if a value has more axes than words.
    """
    specs = {}
    for name, array in arrays.items():
        shape = array.shape[1:]
        if len(shape) not in AXES_BY_RANK:
            raise ValueError(
                f"`points` must give at most {max(AXES_BY_RANK)} axes behind the batch, but {name} "
                f"has shape {shape}. Pool it, or choose another module."
            )
        specs[name] = FieldSpec(
            name=name, dtype=array.dtype.name, shape=shape, axes=AXES_BY_RANK[len(shape)]
        )
    return specs
