"""Brings probes to a run of `ki fit`: what the backbone keeps while it trains."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax_bridge.ki.data.data_config import DataConfig
    from jax_bridge.ki.data.opening import TrainingData
    from jax_bridge.ki.training.watcher import Watcher
    from jax_bridge.pi0.config import Pi0Config
    from jax_bridge.shards import ShardDataset

PARTS = ("object", "container")
"""Labels besides the instruction, where the recorded truth has them."""


def retention_watchers(
    every: int, config: "DataConfig", data: "TrainingData", model: "Pi0Config"
) -> "list[Watcher]":
    """The watcher that asks probes every so many steps; none where `every` is 0.

    Raises:
        ValueError: if nothing is held out to look at, or each process would see its own samples.
    """
    if not every:
        return []
    import jax

    if jax.process_count() > 1:
        raise ValueError(
            "`retention_every` must be 0 with several processes, each of which sees only its "
            f"share of the held-out samples, but got {every}. Leave it out, or take one process."
        )
    if data.held_out is None or not data.has_actions:
        lacking = "nothing is held out" if data.held_out is None else "no robot acts"
        raise ValueError(
            f"`retention_every` must be 0 where {lacking}, but got {every}. Raise --data.held_out, "
            "or add demonstrations."
        )
    from jax_bridge.demos.description import ENTRY
    from jax_bridge.ki.training.retention import RetentionWatcher
    from jax_bridge.shards import open_dataset
    from lightning_modules.retention_scores import RetentionScores

    labels: dict[str, dict[str, str]] = {}
    for dataset in map(open_dataset, config.datasets):
        if ENTRY not in dataset.info.environment:
            continue  # questions about pictures: nobody is told to do anything
        for kind, by_key in labels_of(dataset, config.held_out).items():
            labels.setdefault(kind, {}).update(by_key)
    whole = max(map(len, labels.values()))
    judge = RetentionScores({k: known for k, known in labels.items() if len(known) == whole})
    return [RetentionWatcher(data.held_out, data.prepare, model, judge, every=every)]


def labels_of(dataset: "ShardDataset", share: float) -> dict[str, dict[str, str]]:
    """Each held-out sample's labels by kind; a kind that some sample lacks is left out."""
    from datamodules.targets.goal import GoalPart
    from jax_bridge.shards import split_rows

    rows = split_rows(dataset.index, fractions=(1 - share, share, 0.0))["val"]
    table = dataset.index.select(["key", "instruction"]).take(rows)
    keys = table["key"].to_pylist()
    labels = {"instruction": dict(zip(keys, table["instruction"].to_pylist(), strict=True))}
    for place, kind in enumerate(PARTS):
        try:
            values = GoalPart(kind, place)(dataset, rows)
        except (KeyError, ValueError):  # no simulator stood behind these demonstrations
            continue
        if None not in values:
            labels[kind] = {key: str(value) for key, value in zip(keys, values, strict=True)}
    return labels
