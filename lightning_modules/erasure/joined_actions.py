"""The same policy calls in several data sets: joined by key, and checked to be the same.

Letters: n samples, h horizon, a action dimensions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from jax_bridge.shards import ShardDataset

CHANGED = "interventions"
"""What alone may differ between the data sets' models."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoinedActions:
    """Predicted chunks at the same states."""

    plain: Float32[np.ndarray, "n h a"]
    erased: Float32[np.ndarray, "n h a"]
    random: Sequence[Float32[np.ndarray, "n h a"]]
    """One for each data set of random directions."""
    episode: Int64[np.ndarray, " n"]
    """Numbers of the episodes, from 0."""
    left_out: int
    """Samples of the plain data set that one of the others has not."""


def join_actions(
    plain: ShardDataset, erased: ShardDataset, random: Sequence[ShardDataset]
) -> JoinedActions:
    """Reads what all data sets have.

    Args:
        plain: without a change.
        erased: with the concept erased.
        random: with random directions changed.

    Raises:
        ValueError: if the data sets differ in more than the change, have no sample in common, or
            their states differ.
    """
    others = [("erased", erased), *(("random", dataset) for dataset in random)]
    check_roles(plain, others)
    keys = plain.index["key"].to_pylist()
    rows = [{key: row for row, key in enumerate(d.index["key"].to_pylist())} for _, d in others]
    shared = [row for row, key in enumerate(keys) if all(key in found for found in rows)]
    if not shared:
        raise ValueError(
            f"`plain` must have samples that the others have too, but none of the {len(keys)} in "
            f"{plain.path} is in all of them. Collect the same tasks and episodes."
        )
    state = plain.read_robot("state", rows=shared)
    actions = []
    for (_, dataset), found in zip(others, rows, strict=True):
        chosen = [found[keys[row]] for row in shared]
        check_states(plain, dataset, state, dataset.read_robot("state", rows=chosen))
        actions.append(dataset.read_robot("actions", rows=chosen))
    return JoinedActions(
        plain=plain.read_robot("actions", rows=shared), erased=actions[0], random=actions[1:],
        episode=episode_numbers(plain, shared), left_out=len(keys) - len(shared),
    )  # fmt: skip


def check_roles(plain: ShardDataset, others: Sequence[tuple[str, ShardDataset]]) -> None:
    """Raises where two data sets differ in anything but what is changed in the model."""
    if CHANGED in plain.info.model:
        raise ValueError(
            f"`plain` must be collected without --intervene, but {plain.path} was collected with "
            "one. Exchange the data sets."
        )
    digests: dict[str, str] = {}
    for role, dataset in others:
        digest = dataset.info.model.get(CHANGED)
        if digest is None:
            raise ValueError(
                f"`{role}` must be collected with --intervene, but {dataset.path} was not. Add "
                "--intervene FILE."
            )
        if digest in digests:
            raise ValueError(
                f"`{role}` must be collected with a file of its own, but {dataset.path} has the "
                f"one of {digests[digest]}. Give another seed to vla-lens erase."
            )
        digests[digest] = str(dataset.path)
        if difference := differing(plain.info.identity, dataset.info.identity):
            raise ValueError(
                f"`{role}` must be collected as {plain.path} was, but {dataset.path} differs in "
                f"{', '.join(difference)}. Use the same options for all."
            )


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of settings that differ; what is captured and what is changed may."""
    words = sorted({*one, *other} - {"capture", "model"})
    found = [word for word in words if one.get(word) != other.get(word)]
    models = sorted({*one["model"], *other["model"]} - {CHANGED})
    pairs = [(word, one["model"].get(word), other["model"].get(word)) for word in models]
    return found + [f"model.{word}" for word, a, b in pairs if a != b]


def check_states(
    plain: ShardDataset, other: ShardDataset, expected: np.ndarray, found: np.ndarray
) -> None:
    """Raises where the robot was not in the same state: then actions cannot be compared."""
    different = (expected != found).any(axis=tuple(range(1, expected.ndim)))
    if different.any():
        raise ValueError(
            f"`state` must be the same in all data sets, but {int(different.sum())} of "
            f"{len(different)} samples of {other.path} differ from {plain.path}. Collect with "
            "--drive demonstrator, so that the policy's actions do not change what it sees."
        )


def episode_numbers(dataset: ShardDataset, rows: Sequence[int]) -> Int64[np.ndarray, " n"]:
    """Consecutive numbers of the rows' episodes."""
    names = ("suite", "task_id", "episode")
    table = zip(*(dataset.index[name].to_pylist() for name in names), strict=True)
    every = list(table)
    numbers: dict[tuple[Any, ...], int] = {}
    return np.array([numbers.setdefault(every[row], len(numbers)) for row in rows], np.int64)
