"""The features of all selected rows, checked once before training starts.

Letters: b batch, c cells, d width.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from datamodules.damaged_rows import DamagedRows, OnError
from datamodules.feature_source import FeatureSource
from jax_bridge.shards import DamagedShardError, ShardDataset

Rows = Int64[np.ndarray, "_"]
SUMMED_AT_ONCE = 2**20
"""Numbers that are looked at together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiniteFeatures:
    """Reads features in batches and refuses what is not finite."""

    dataset: ShardDataset
    source: FeatureSource
    batch_size: int
    on_error: OnError
    damaged: DamagedRows = dataclasses.field(default_factory=DamagedRows)
    """What was left out by `on_error` skip."""

    def training(self, training: Rows, every: Rows) -> Iterator[Float[Tensor, "b c d"]]:
        """Yields those of the training rows; reads all, so that a bad one is found at once.

        Raises:
            ValueError: if a feature of any row is NaN or infinite; names the sample.
        """
        yield from self.batches(training)
        for _ in self.batches(np.setdiff1d(every, training)):
            pass

    def batches(self, rows: Rows) -> Iterator[Float[Tensor, "b c d"]]:
        """Yields the features of these rows.

        Raises:
            ValueError: if one is NaN or infinite; names the sample.
        """
        for start in range(0, len(rows), self.batch_size):
            part, features = self._sound(rows[start : start + self.batch_size])
            if features is None:
                continue
            if not sums_are_finite(features):
                self._refuse_infinite(part, features)
            yield features

    def _refuse_infinite(self, rows: Rows, features: Float[Tensor, "b c d"]) -> None:
        """Names the first sample that is not finite; sums of large ones need not be either."""
        finite = features.isfinite().flatten(1).all(1)
        if finite.all():
            return
        bad = int(rows[int((~finite).nonzero()[0, 0])])
        key, shard = (self.dataset.index[name][bad].as_py() for name in ("key", "shard"))
        raise ValueError(
            f"`path` must hold finite latents, but {self.source.name} of sample "
            f"{key} in shard {shard} of {self.dataset.path} is NaN or infinite. "
            "Leave that episode out, or capture it again."
        )

    def _sound(self, rows: Rows) -> tuple[Rows, Float[Tensor, "b c d"] | None]:
        """The rows that can be read, and their features; None where there are none."""
        try:
            return rows, self._read(rows)
        except DamagedShardError:
            if self.on_error == "raise":
                raise
        sound = rows[~self.damaged.find(self._read, rows)]
        return sound, self._read(sound) if len(sound) else None

    def _read(self, rows: Rows) -> Float[Tensor, "b c d"]:
        return self.source.read(self.dataset, rows)


def sums_are_finite(features: Float[Tensor, "b c d"]) -> bool:
    """Whether all partial sums are, so that all terms are; few at once, as a cache holds them."""
    flat = features.flatten()
    return all(
        bool(part.sum(dtype=torch.float32).isfinite()) for part in flat.split(SUMMED_AT_ONCE)
    )
