"""How often a policy succeeded, task by task, and how sure that is."""

import collections
from typing import Any, NamedTuple

import scipy.stats

from jax_bridge.shards import ShardDataset

CONFIDENCE = 0.95


class SuccessRate(NamedTuple):
    """Of some episodes."""

    name: str
    """The task's own words, or `all`."""
    episodes: int
    successes: int
    at_end: int
    """Episodes whose goal held when they ended."""

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true rate lies with 95 % confidence.

        Source: Wilson (1927), "Probable inference, the law of succession, and statistical
        inference".
        """
        found = scipy.stats.binomtest(self.successes, self.episodes)
        low, high = found.proportion_ci(CONFIDENCE, method="wilson")
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        low, high = self.interval
        return {**self._asdict(), "rate": self.successes / self.episodes, "interval": [low, high]}


def success_rates(dataset: ShardDataset) -> list[SuccessRate]:
    """The rate of every task, in their order, and last that of all episodes.

    Raises:
        ValueError: if there is no episode whose outcome is known.
    """
    names = ["suite", "task_id", "episode", "task_instruction", "success", "success_at_end"]
    tasks: dict[tuple[str, int], str] = {}
    outcomes: dict[tuple[str, int], dict[int, tuple[bool, bool]]] = collections.defaultdict(dict)
    for row in dataset.index.select(names).to_pylist():
        if row["success"] is None:
            continue
        task = (row["suite"], row["task_id"])
        tasks[task] = row["task_instruction"] or f"task {row['task_id']}"
        outcomes[task][row["episode"]] = (bool(row["success"]), bool(row["success_at_end"]))
    if not outcomes:
        raise ValueError(
            f"`dataset` must hold episodes whose outcome is known, but {dataset.path} holds none."
        )
    rates = [_rate(tasks[task], list(outcomes[task].values())) for task in sorted(outcomes)]
    return [*rates, _rate("all", [one for task in outcomes.values() for one in task.values()])]


def _rate(name: str, outcomes: list[tuple[bool, bool]]) -> SuccessRate:
    ever, at_end = (sum(column) for column in zip(*outcomes, strict=True))
    return SuccessRate(name, len(outcomes), ever, at_end)
