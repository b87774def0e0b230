"""Runs that ask for the same batches: the first one reads each, and the others are given it.

The runs go through their batches in step (`turns.py`), so only the last batch is kept. Who asks for
other rows reads them: a run's numbers never depend on who else is there.
"""

import collections
from collections.abc import Callable, Sequence

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.feature_source import FeatureSource
from datamodules.latents import LatentDataModule
from datamodules.stream import READ_AHEAD, BatchReader, Rows
from jax_bridge.shards import ShardDataset
from lightning_modules.sweep.turns import Turns

Key = tuple[bytes, bool]
"""The rows, and whether nothing may be trained on what was read (torch's inference mode)."""


class LastBatch:
    """The features that were read last, by source."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Key, Tensor]] = {}
        self._announced: collections.deque[bytes] = collections.deque(maxlen=READ_AHEAD + 1)
        self._dataset: ShardDataset | None = None

    def dataset(self, own: ShardDataset) -> ShardDataset:
        """The handle by which all read: that of the first run; it knows what lies ready."""
        self._dataset = self._dataset or own
        return self._dataset

    def announce(self, rows: Rows) -> bool:
        """Whether nobody has said yet that these rows are read soon."""
        new = rows.tobytes() not in self._announced
        if new:
            self._announced.append(rows.tobytes())
        return new

    def features(
        self, source: FeatureSource, dataset: ShardDataset, rows: Rows
    ) -> Float[Tensor, "b c d"]:
        """Those of some rows, read if they are not those that were read last."""
        key = (rows.tobytes(), torch.is_inference_mode_enabled())
        found, features = self._kept.pop(source.identity, (None, None))
        if found != key or features is None:
            del features  # so that there is never room needed for two
            features = source.read(dataset, rows)
        self._kept[source.identity] = key, features
        return features


class MemberReader(BatchReader):
    """Reads for one of several runs, in its turn."""

    def __init__(self, own: BatchReader, last: LastBatch, next_turn: Callable[[], None]) -> None:
        super().__init__(
            last.dataset(own.dataset), sources=own.sources, target=own.target, columns=own.columns
        )
        self._last = last
        self._next_turn = next_turn

    def read_ahead(self, rows: Rows) -> None:
        """Says it once for all runs."""
        if self._last.announce(rows):
            super().read_ahead(rows)

    def features(self, rows: Rows) -> Sequence[Float[Tensor, "b _c _d"]]:
        """What was read for another run, or is read now for all."""
        self._next_turn()
        return tuple(self._last.features(source, self.dataset, rows) for source in self.sources)


class SharedReading(pl.Callback):
    """Makes a run one of several that read together.

    They meet between fit, validation and test, where some have stopped early.

    Args:
        turns: of all these runs.
        last: what they read last.
        member: this run's number.
    """

    def __init__(self, turns: Turns, last: LastBatch, member: int) -> None:
        self._turns, self._last, self._member = turns, last, member

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Meets the others; from the fit on, all read together."""
        if stage != "fit":
            self._turns.meet(self._member)
        data = getattr(trainer, "datamodule")  # noqa: B009 - untyped there
        assert isinstance(data, LatentDataModule)
        if not isinstance(data.reader, MemberReader):
            turn = self._member
            data.reader = MemberReader(data.reader, self._last, lambda: self._turns.pass_on(turn))
