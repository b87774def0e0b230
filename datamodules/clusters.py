"""The episodes of a selection: the units over which uncertainty is estimated."""

import dataclasses

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.index_table import IndexTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clusters:
    """The episodes of a data set in the order of its index, and the task each belongs to."""

    episodes: tuple[str, ...]
    """`suite/t003/e0001`, one an episode."""
    task_of_episode: Int64[np.ndarray, " n"]
    """A place in `tasks` for each episode."""
    unit: str = "episode"
    """What is kept together by the split (`episode`, `task`, `suite`): the unit that is drawn
    when uncertainty is estimated."""
    unit_of_episode: Int64[np.ndarray, " n"]
    """Number of the unit that each episode belongs to."""
    steps_of_episode: Int64[np.ndarray, " n"]
    """How many steps each episode takes, as far as its samples show: the last timestep + 1."""
    stride: int = 1
    """What divides every sample's timestep."""
    tasks: tuple[str, ...]
    """Names of the tasks; a name that two suites share is written with its suite."""

    def __len__(self) -> int:
        return len(self.episodes)


def first_places(labels: list[str]) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    """Returns the different labels by first appearance, and each label's place among them."""
    place: dict[str, int] = {}
    codes = [place.setdefault(label, len(place)) for label in labels]
    return list(place), np.asarray(codes, np.int64)


def task_labels(index: IndexTable) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    """Readable names of the tasks, `003 put the red cube in the blue bowl`, and each row's place.

    The suite stands in front where the index holds more than one.
    """
    groups = index.groups(["suite", "task_id", "task_name"])
    several = len({suite for suite, _, _ in groups.names}) > 1
    labels = [
        " ".join([*([suite] if several else []), f"{task:03d}", *([name] if name else [])])
        for suite, task, name in groups.names
    ]
    names, places = first_places(labels)
    return names, places[groups.of_row]


UNIT_COLUMNS: dict[str, tuple[str, ...]] = {
    "episode": ("suite", "task_id", "episode"),
    "task": ("suite", "task_id"),
    "suite": ("suite",),
}


def clusters_of_index(
    index: IndexTable, *, unit: str = "episode"
) -> tuple[Clusters, Int64[np.ndarray, " n"]]:
    """Finds the episodes of an index; returns them and the episode of each row.

    Args:
        index: the rows.
        unit: what the split keeps together.
    """
    found = index.groups(UNIT_COLUMNS["episode"])
    episodes, place = first_places([f"{s}/t{t:03d}/e{e:04d}" for s, t, e in found.names])
    episode_of_row = place[found.of_row]
    tasks, task_of_row = task_labels(index)
    task_of_episode = np.zeros(len(episodes), np.int64)
    task_of_episode[episode_of_row] = task_of_row
    units = index.groups(UNIT_COLUMNS[unit])
    unit_of_episode = np.zeros(len(episodes), np.int64)
    unit_of_episode[episode_of_row] = units.of_row
    steps = np.zeros(len(episodes), np.int64)
    timesteps = index["timestep"].to_numpy().astype(np.int64)
    np.maximum.at(steps, episode_of_row, timesteps + 1)
    clusters = Clusters(
        episodes=tuple(episodes),
        task_of_episode=task_of_episode,
        unit=unit,
        unit_of_episode=unit_of_episode,
        steps_of_episode=steps,
        stride=max(1, int(np.gcd.reduce(timesteps))) if len(timesteps) else 1,
        tasks=tuple(tasks),
    )
    return clusters, episode_of_row
