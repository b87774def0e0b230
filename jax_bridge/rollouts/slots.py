"""Which row of the batch an episode has, and which part of a plan a host has.

Both depend on the episode alone, never on how many processes there are or what is done already,
so that a run that is resumed, or spread over hosts, gives every episode the same row.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from jax_bridge.environments.environment import Task

_T = TypeVar("_T")
_SHARD = re.compile(r"(\d+)/(\d+)")


def slot_of(task_id: int, episode: int, slots: int) -> int:
    """The row of an episode; neighbours in a plan have different ones."""
    return (task_id + episode) % slots


def by_slot(todo: Iterable[tuple[Task, int]], slots: int) -> list[list[tuple[Task, int]]]:
    """Episodes of every row, in the order of the plan."""
    queues: list[list[tuple[Task, int]]] = [[] for _ in range(slots)]
    for task, episode in todo:
        queues[slot_of(task.task_id, episode, slots)].append((task, episode))
    return queues


def parse_shard(text: str) -> tuple[int, int]:
    """Reads `i/n`: part i, from 0, of n.

    Raises:
        ValueError: if the text is something else.
    """
    match = _SHARD.fullmatch(text.strip())
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 <= index < count:
        raise ValueError(
            f"`--shard` must be i/n with i from 0 to n-1, like 0/4, but got {text!r}. Give every "
            "host another i and the same n."
        )
    return index, count


def part_of(wanted: Sequence[_T], index: int, count: int) -> Sequence[_T]:
    """A run of neighbours: part `index` of `count` nearly equal ones."""
    return wanted[len(wanted) * index // count : len(wanted) * (index + 1) // count]
