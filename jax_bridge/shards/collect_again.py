"""Which `vla-lens collect` ranges bring missing episodes back."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from jax_bridge.shards.sample_key import EpisodeId


class Again(NamedTuple):
    """Episodes that one command collects; both ranges are half-open."""

    suite: str
    tasks: tuple[int, int]
    episodes: tuple[int, int]

    @property
    def options(self) -> str:
        """The options to give."""
        (a, b), (c, d) = self.tasks, self.episodes
        return f"--tasks {a}:{b} --episodes {c}:{d}"


def ranges_again(missing: Collection[EpisodeId]) -> list[Again]:
    """Ranges that hold exactly the missing episodes, as few as tasks that go together allow."""
    found: list[Again] = []
    for suite in sorted({episode.suite for episode in missing}):
        tasks_of: dict[tuple[int, int], list[int]] = {}
        for task in sorted({e.task_id for e in missing if e.suite == suite}):
            numbers = sorted(e.episode for e in missing if e[:2] == (suite, task))
            for run in runs(numbers):
                tasks_of.setdefault(run, []).append(task)
        found += [
            Again(suite, tasks, episodes)
            for episodes, numbers in tasks_of.items()
            for tasks in runs(numbers)
        ]
    return sorted(found)


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Rising numbers as half-open ranges."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def spelled(run: tuple[int, int]) -> str:
    """`5-7`, or `5` alone."""
    first, last = run[0], run[1] - 1
    return str(first) if first == last else f"{first}-{last}"
