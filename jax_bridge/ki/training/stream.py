"""What the trainer asks of its data: batches that say where the reading stands."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jax_bridge.ki.batch import TrainingBatch


class HostBatch(NamedTuple):
    """This process's rows of one batch, in numpy."""

    batch: TrainingBatch
    """Images may be grey levels (uint8): `prepare` turns them into numbers on the device."""
    keys: tuple[str, ...]
    """Keys of the samples, so that a message can name them."""
    position: Mapping[str, Any]
    """Where the reading stands once this batch is used: what JSON can hold. It is part of the
    checkpoint, so that batches that were read ahead are read again."""
    counts: Mapping[str, int] = {}
    """What was left out so far, by reason (`fast_overflow`, `damaged`, ...)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a checkpoint must know of the data that it was trained on."""

    description: Mapping[str, Any]
    """For the run folder, and compared when a run goes on: fingerprints, weights of a mixture,
    digests of statistics and tokenizers. What JSON can hold."""
    assets: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """Files below `assets/`, by relative path: `{asset_id}/norm_stats.json` as openpi has it, and
    `{asset_id}/fast/...`."""
    policy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How a policy must prepare its inputs for these weights: `tokenizer`, `convention`,
    and the fields of `Recipe` under `recipe`. What JSON can hold."""


@runtime_checkable
class BatchStream(Protocol):
    """An endless stream of batches in an order that is a function of its settings alone."""

    @property
    def facts(self) -> DataFacts:
        """What a checkpoint must know of the data."""
        ...

    def __next__(self) -> HostBatch:
        """The next batch."""
        ...

    def restore(self, position: Mapping[str, Any]) -> None:
        """Goes on behind the batch that carried this position."""
        ...

    def close(self) -> None:
        """Stops workers."""
        ...


HeldOut = Iterable[HostBatch]
"""A fixed, finite set of batches, the same each time that it is iterated."""
