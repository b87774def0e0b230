"""Reading `--instructions`: a word for all tasks, or a YAML file of rules by suite and task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from jax_bridge.environments.environment import Task
from jax_bridge.rollouts.instructions import WORDS, Instructions, Rule, Word

_RULE = f"a text, a list of texts, one of {', '.join(WORDS)}, or a share like {{swapped: 0.5}}"


def read_instructions(given: str, tasks: Sequence[Task]) -> Instructions:
    """What `--instructions` asks for in a suite.

    Args:
        given: one of `WORDS`, or the path of a YAML file.
        tasks: all tasks of the suite.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no YAML, does not name the suite, names a task that the suite
            has not, or a rule is none.
    """
    if given in WORDS:
        return Instructions(tasks=tasks, rules=_everywhere(given, tasks))
    path = Path(given)
    if not path.is_file():
        raise FileNotFoundError(
            f"`instructions` must be {', '.join(WORDS)} or a YAML file, but there is no file "
            f"{given}."
        )
    return Instructions(tasks=tasks, rules=_of_suite(_content(path), tasks))


def _content(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"`instructions` must be a YAML file, but {path}: {line}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"`instructions` must map suites to rules, but {path} holds {content!r}. Begin it "
            "with the name of a suite."
        )
    return content


def _of_suite(content: Mapping[Any, Any], tasks: Sequence[Task]) -> dict[int, Rule]:
    suite = tasks[0].suite
    if suite not in content:
        raise ValueError(
            f"`instructions` must name the suite {suite}, but it names "
            f"{', '.join(map(str, content)) or 'none'}. Add {suite}: with its rules."
        )
    given = content[suite]
    if not isinstance(given, Mapping) or set(given) & set(WORDS):
        return _everywhere(given, tasks)
    numbers = {task.task_id: task.task_id for task in tasks}
    names = {task.name: task.task_id for task in tasks}
    rules: dict[int, Rule] = {}
    for task, rule in given.items():
        number = numbers.get(task, names.get(task))
        if number is None or number in rules:
            raise ValueError(
                f"`instructions` must name each task of {suite} once, by its number "
                f"(0 to {len(tasks) - 1}) or name, but got {task!r}. Ask `vla-lens shards inspect` "
                "for the numbers."
            )
        rules[number] = _rule(rule)
    return rules


def _everywhere(given: Any, tasks: Sequence[Task]) -> dict[int, Rule]:
    return {task.task_id: _rule(given) for task in tasks}


def _rule(given: Any) -> Rule:
    if isinstance(given, str):
        if given in WORDS:
            return Rule(word=cast("Word", given))
        return Rule(texts=(given,))
    if (
        isinstance(given, list)
        and given
        and all(isinstance(text, str) and text not in WORDS for text in given)
    ):
        return Rule(texts=tuple(given))
    if isinstance(given, Mapping) and len(given) == 1:
        [(word, share)] = given.items()
        if word in WORDS and isinstance(share, (int, float)) and not isinstance(share, bool):
            return Rule(word=word, share=float(share))
    raise ValueError(f"`instructions` must give {_RULE}, but got {given!r}.")
