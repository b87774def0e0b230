"""Which words the policy is told, where they are not the task's own: `collect --instructions`.

What a policy is told is a pure function of (seed, suite, task, episode), so that a run that is
resumed, or spread over processes and hosts, tells every episode the same.
"""

import collections
import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np

from jax_bridge.environments.environment import Task

Word = Literal["swapped", "empty", "scrambled"]
"""`swapped`: another task's words; `empty`: none; `scrambled`: the own ones in another order."""
WORDS: tuple[str, ...] = get_args(Word)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What the episodes of one task are told."""

    texts: tuple[str, ...] = ()
    """Paraphrases, taken in turn by the number of the episode; empty where `word` is given."""
    word: Word | None = None
    share: float = 1.0
    """Of the episodes that are told the word; the others are told the task's own words."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"`instructions` must give a share above 0 and at most 1, but got {self.share}."
            )

    def applies(self, episode: int) -> bool:
        """Whether this episode is among the share; they are spread evenly over the numbers."""
        share = Fraction(str(self.share))  # as it was written: 0.1 is a tenth
        return share * (episode + 1) // 1 > share * episode // 1

    def to_json(self) -> dict[str, Any]:
        """The rule for `dataset.json`."""
        if self.word is None:
            return {"texts": list(self.texts)}
        return {"word": self.word, "share": self.share}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instructions:
    """What the policy is told in a suite's tasks."""

    tasks: Sequence[Task]
    """All tasks of the suite, whose words are swapped."""
    rules: Mapping[int, Rule]
    """By task number; a task without a rule is told its own words."""

    def __post_init__(self) -> None:
        for number, rule in self.rules.items():
            if rule.word == "swapped":
                self._check_swappable(number)
            if rule.word == "scrambled" and len(set(self._own(number).split())) < 2:
                raise ValueError(
                    "`instructions` must leave two different words to scramble, but task "
                    f"{number} says {self._own(number)!r}. Leave it out or swap it."
                )

    def instruction(self, *, seed: int, task: Task, episode: int) -> str:
        """The words for one episode.

        Args:
            seed: of the run.
            task: the task that is to be solved.
            episode: its number.
        """
        rule = self.rules.get(task.task_id)
        if rule is None or not rule.applies(episode):
            return task.instruction
        if rule.word is None:
            return rule.texts[episode % len(rule.texts)]
        if rule.word == "empty":
            return ""
        key = [seed, zlib.crc32(task.suite.encode())]
        if rule.word == "swapped":
            return derangement(self.tasks, np.random.default_rng([*key, episode]))[task.task_id]
        return scrambled(task.instruction, np.random.default_rng([*key, task.task_id, episode]))

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the tasks' own words, under the name of the suite."""
        rules = {str(number): self.rules[number].to_json() for number in sorted(self.rules)}
        return {self.tasks[0].suite: rules}

    def _own(self, number: int) -> str:
        return next(task.instruction for task in self.tasks if task.task_id == number)

    def _check_swappable(self, number: int) -> None:
        same = most_alike(self.tasks)
        if 2 * same > len(self.tasks):
            raise ValueError(
                "`instructions` must find another text for every task of the suite to swap task "
                f"{number}, but {same} of its {len(self.tasks)} tasks say the same. Give the "
                "texts in a file."
            )


def most_alike(tasks: Sequence[Task]) -> int:
    """How many tasks share the most frequent text."""
    return max(collections.Counter(task.instruction for task in tasks).values())


def derangement(tasks: Sequence[Task], generator: np.random.Generator) -> dict[int, str]:
    """A text for each task that is not its own; each task's text is used exactly once.

    The tasks are put in a random order in which equal texts stand together, and every text goes to
    the task that stands further on by the size of the largest group: past its own group, and not
    round into it, as long as no text belongs to more than half of the tasks.
    """
    order = generator.permutation(len(tasks))
    place: dict[str, int] = {}
    for at in order:
        place.setdefault(tasks[at].instruction, len(place))
    together = sorted(order, key=lambda at: place[tasks[at].instruction])
    shift = most_alike(tasks)
    return {
        tasks[at].task_id: tasks[together[(i + shift) % len(tasks)]].instruction
        for i, at in enumerate(together)
    }


def scrambled(text: str, generator: np.random.Generator) -> str:
    """The words in a random order that is not the given one."""
    words = text.split()
    mixed = words
    while mixed == words:
        mixed = [words[at] for at in generator.permutation(len(words))]
    return " ".join(mixed)
