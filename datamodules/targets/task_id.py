"""Which task the episode belongs to; a task is (suite, task id)."""

from datamodules.clusters import task_labels
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset


def task_of_rows(dataset: ShardDataset, rows: Rows) -> list[str]:
    """Readable names, `003 put the red cube in the blue bowl`."""
    names, codes = task_labels(dataset.metadata.take(rows))
    return [names[code] for code in codes.tolist()]
