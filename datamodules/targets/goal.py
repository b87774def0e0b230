"""What the task is about: the object and the container of its goal, from the recorded truth.

The tabletop names its goal (`in(red_cube, blue_bowl)`); LIBERO records the predicates of the goal
alone, so one predicate of two things is the goal. Goals of several parts have no one object.
"""

import dataclasses
import functools
import json
import re

from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset

_RELATION = re.compile(r"\w+\(([^,()]+), ([^,()]+)\)")
_INSTANCE = re.compile(r"_\d+(_.*)?$")
"""LIBERO's numbers of instances and parts: `basket_1_contain_region` is a basket."""


def truths(dataset: ShardDataset, rows: Rows) -> list[str | None]:
    """The recorded ground truth as JSON texts."""
    return dataset.index.select(["truth"]).take(rows)["truth"].to_pylist()


@functools.lru_cache(maxsize=4096)
def goal_of(goal: str) -> tuple[str, str] | None:
    """Object and container of `in(object, container)`."""
    found = _RELATION.fullmatch(goal)
    if found is None:
        return None
    return _INSTANCE.sub("", found[1]), _INSTANCE.sub("", found[2])


def goal_of_truth(text: str | None) -> tuple[str, str] | None:
    """The goal of a sample's truth; None where it has none, or several."""
    truth = json.loads(text) if text else {}
    goal = truth.get("goal")
    if isinstance(goal, str):
        return goal_of(goal)
    predicates = truth.get("predicates") or {}
    return goal_of(next(iter(predicates))) if len(predicates) == 1 else None


@dataclasses.dataclass(frozen=True)
class GoalPart:
    """One of the two things of the goal.

    Args:
        target: which target asks, for messages.
        place: 0 the object, 1 the container.
    """

    target: str
    place: int

    def __call__(self, dataset: ShardDataset, rows: Rows) -> list[str | None]:
        """One a row; those of one episode are the same, and read once.

        Raises:
            ValueError: if no row has a goal.
        """
        groups = dataset.index.select(["suite", "task_id"]).take(rows).groups(["suite", "task_id"])
        texts = truths(dataset, rows)
        goal: dict[int, str | None] = {}
        for group, text in zip(groups.of_row.tolist(), texts, strict=True):
            if goal.get(group) is None:
                found = goal_of_truth(text)
                goal[group] = found[self.place] if found else None
        if not any(goal.values()):
            raise ValueError(
                f"`target` {self.target} needs a goal of one relation in the recorded truth, but "
                f"none of {len(rows)} samples in {dataset.path} has one. Use target column:NAME."
            )
        return [goal[group] for group in groups.of_row.tolist()]
