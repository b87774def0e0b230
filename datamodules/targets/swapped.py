"""Whether the policy was given another instruction than the task's."""

from datamodules.targets.index_column import ReadTexts
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset


def swapped(dataset: ShardDataset, rows: Rows) -> list[str | None]:
    """`true` or `swapped`; None where one of the two instructions is unknown."""
    given, meant = (ReadTexts(name)(dataset, rows) for name in ("instruction", "task_instruction"))
    pairs = zip(given, meant, strict=True)
    return [None if None in (a, b) else ("true" if a == b else "swapped") for a, b in pairs]
