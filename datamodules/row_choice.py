"""Which samples a selection means, by suite, task, episode and rollout step."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from datamodules.field_choice import spans
from jax_bridge.shards import ShardDataset
from jax_bridge.shards.index_table import IndexTable

HalfOpen = str | Sequence[int]


def parse_half_open(given: HalfOpen, *, name: str) -> range:
    """Reads `2:5`, or [2, 5], as the numbers 2, 3 and 4; a single `2` as 2 alone.

    Raises:
        ValueError: if it is no such range, or an empty one.
    """
    parts = given.split(":") if isinstance(given, str) else [str(part) for part in given]
    numbers = [int(part) for part in parts if part.strip().isdecimal()]
    if len(numbers) == len(parts) == 1:
        numbers.append(numbers[0] + 1)
    if len(numbers) != max(len(parts), 2) or len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise ValueError(
            f"`{name}` must be a half-open range such as 0:5 (in YAML quoted, '0:5', or [0, 5]), "
            f"but got {given!r}."
        )
    return range(*numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowChoice:
    """What the chosen samples have in common; None is no restriction."""

    suite: str | None = None
    task_range: HalfOpen | None = None
    """Half-open, `0:5`."""
    episode_range: HalfOpen | None = None
    """Half-open, of each task's episodes."""
    rollout_step: int | list[int] | None = None
    """The timesteps of the episode."""

    def rows(self, dataset: ShardDataset) -> Int64[np.ndarray, " n"]:
        """Row numbers in the order of the index.

        Raises:
            ValueError: if a task, suite, episode range or step is not there, or nothing is left.
        """
        index = dataset.index
        keep = np.ones(index.num_rows, bool)
        if self.suite is not None:
            keep &= _suite(index, self.suite)
        if self.task_range is not None:
            wanted = parse_half_open(self.task_range, name="task_range")
            tasks = _numbers(index, "task_id")
            _check_tasks(wanted, tasks[keep])
            keep &= np.isin(tasks, list(wanted))
        if self.episode_range is not None:
            wanted = parse_half_open(self.episode_range, name="episode_range")
            keep = _restrict(keep, index, "episode", list(wanted), "episode_range", every=False)
        if self.rollout_step is not None:
            steps = self.rollout_step
            wanted = [steps] if isinstance(steps, int) else list(steps)
            keep = _restrict(keep, index, "timestep", wanted, "rollout_step", every=True)
        if not keep.any():
            raise ValueError(f"`path` must hold samples, but got {dataset.path}, which has none.")
        return np.flatnonzero(keep).astype(np.int64)


def _numbers(index: IndexTable, column: str) -> Int64[np.ndarray, " n"]:
    return index[column].to_numpy().astype(np.int64)


def _suite(index: IndexTable, suite: str) -> Bool[np.ndarray, " n"]:
    suites, codes = index.codes("suite")
    if suite not in suites:
        raise ValueError(f"`suite` must be one of {', '.join(sorted(suites))}, but got {suite!r}.")
    return codes == suites.index(suite)


def _check_tasks(wanted: range, tasks: Int64[np.ndarray, " n"]) -> None:
    missing = sorted(set(wanted) - set(tasks.tolist()))
    if missing:
        raise ValueError(
            f"`task_range` must choose tasks that were collected, but got {wanted.start}:"
            f"{wanted.stop}, and there is no task {spans(missing)}. The data set holds tasks "
            f"{spans(np.unique(tasks).tolist())}."
        )


def _restrict(
    keep: Bool[np.ndarray, " n"],
    index: IndexTable,
    column: str,
    wanted: list[int],
    name: str,
    *,
    every: bool,
) -> Bool[np.ndarray, " n"]:
    """Narrows to the wanted numbers, any of which (or, with `every`, all) must be there."""
    values = _numbers(index, column)
    there = np.unique(values[keep]).tolist()
    missing = sorted(set(wanted) - set(there))
    if not wanted or (missing if every else len(missing) == len(set(wanted))):
        shown = spans(there) if len(there) <= 40 else f"{there[0]} to {there[-1]}"
        raise ValueError(
            f"`{name}` must leave samples, but {spans(missing) or wanted} selects none. "
            f"The selection holds {column}s {shown}."
        )
    return keep & np.isin(values, wanted)
