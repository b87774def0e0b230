"""Which stratum an episode belongs to: by what its file says, by its name, or by how it moves."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from lightning_modules.recordings.episode_facts import EpisodeFacts

NONE = "(not said)"
THIRDS = ("low", "middle", "high")
STANDS_FOR = {"difficulty": "path_length", "trajectory": "direction"}
"""What is computed for a word that neither an attribute nor a name gives."""
NUMBERS: dict[str, Callable[[EpisodeFacts], float]] = {
    "path_length": lambda facts: facts.movement.path_length,
    "curvature": lambda facts: facts.movement.curvature,
    "duration": lambda facts: float(facts.length),
}
"""Cut into thirds of equally many episodes."""
WORDS: dict[str, Callable[[EpisodeFacts], str]] = {
    "task": lambda facts: facts.instruction or NONE,
    "direction": lambda facts: facts.movement.direction,
    "layout": lambda facts: facts.layout,
    "success": lambda facts: NONE if facts.success is None else str(facts.success).lower(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strata:
    """Labels of every episode."""

    words: tuple[str, ...]
    labels: list[tuple[str, ...]]
    """One label a word, for each episode."""
    sources: dict[str, str]
    """Where each word's labels come from."""
    warnings: list[str]


def stratify(episodes: Sequence[EpisodeFacts], by: Sequence[str], name_rule: str | None) -> Strata:
    """Labels episodes.

    Args:
        episodes: all of them.
        by: the words; each is an attribute of the files, a group of the name rule, or computed.
        name_rule: a regular expression with named groups, searched in each episode's name.

    Raises:
        ValueError: if a word is unknown, or the rule is none.
    """
    if not by or len(set(by)) < len(by):
        raise ValueError(f"`by` must name each stratum once, but got {list(by)}.")
    found = _named(episodes, name_rule)
    columns, sources, warnings = [], {}, []
    for word in by:
        labels, sources[word] = _labels(episodes, word, found)
        columns.append(labels)
        missing = labels.count(NONE)
        if len(set(labels)) == 1:
            warnings.append(f"`{word}` has a single value, {labels[0]!r}: it separates nothing")
        elif missing:
            warnings.append(f"`{word}` is not said of {missing} of {len(labels)} episodes")
    labels = list(zip(*columns, strict=True))
    return Strata(words=tuple(by), labels=labels, sources=sources, warnings=warnings)


def _named(episodes: Sequence[EpisodeFacts], rule: str | None) -> list[dict[str, str | None]]:
    if rule is None:
        return [{} for _ in episodes]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ValueError(f"`name_rule` must be a pattern, but got {rule!r} ({error}).") from error
    if not pattern.groupindex:
        raise ValueError(
            f"`name_rule` must have named groups such as (?P<difficulty>easy|hard), but got "
            f"{rule!r}."
        )
    matches = [pattern.search(facts.name) for facts in episodes]
    if not any(matches):
        raise ValueError(
            f"`name_rule` must fit names such as {episodes[0].name}, but {rule!r} fits none."
        )
    return [match.groupdict() if match else {} for match in matches]


def _labels(
    episodes: Sequence[EpisodeFacts], word: str, named: Sequence[dict[str, str | None]]
) -> tuple[list[str], str]:
    if any(groups.get(word) for groups in named):
        return [groups.get(word) or NONE for groups in named], "the name rule"
    if any(word in facts.attributes for facts in episodes):
        labels = [str(facts.attributes.get(word, NONE)) for facts in episodes]
        return labels, "the files' attributes"
    computed = STANDS_FOR.get(word, word)
    if computed in WORDS:
        return [WORDS[computed](facts) for facts in episodes], f"computed: {computed}"
    if computed in NUMBERS:
        values = [NUMBERS[computed](facts) for facts in episodes]
        return thirds(values), f"computed: {computed} in thirds"
    said = sorted({name for facts in episodes for name in facts.attributes})
    known = [*WORDS, *NUMBERS, *STANDS_FOR]
    raise ValueError(
        f"`by` must name an attribute of the files ({', '.join(said[:8]) or 'they have none'}), a "
        f"group of the name rule, or one of {', '.join(known)}, but got {word!r}."
    )


def thirds(values: Sequence[float]) -> list[str]:
    """Low, middle or high, with the bounds; equal numbers are never parted."""
    first, second = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    low, middle, high = THIRDS
    words = {
        low: f"{low} (to {first:.4g})",
        middle: f"{middle} (to {second:.4g})",
        high: f"{high} (above {second:.4g})",
    }
    return [words[low if v <= first else middle if v <= second else high] for v in values]
