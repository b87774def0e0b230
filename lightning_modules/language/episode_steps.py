"""Which sample stands for each episode at each rollout step.

Letters: e episodes, s steps.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int64

from datamodules.clusters import clusters_of_index, first_places
from datamodules.row_choice import RowChoice
from jax_bridge.shards import ShardDataset

FEWEST_EPISODES = 6
"""Steps that fewer episodes reach are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeSteps:
    """The chosen samples as a table of episodes and rollout steps."""

    rows: Int64[np.ndarray, "e s"]
    """Row numbers in the index; -1 where an episode has no sample."""
    steps: Int64[np.ndarray, " s"]
    """The timestep at which each step begins."""
    left_out: int
    """Steps that too few episodes reach."""
    thinned: bool
    """Whether a step stands for several timesteps."""
    tasks: tuple[str, ...]
    task: Int64[np.ndarray, " e"]
    texts: tuple[str, ...]
    """The different instructions."""
    text: Int64[np.ndarray, " e"]
    success: Float64[np.ndarray, " e"]
    """1, 0, or NaN where nobody judged."""

    @property
    def there(self) -> Bool[np.ndarray, "e s"]:
        """Where there is a sample."""
        return self.rows >= 0

    @property
    def samples(self) -> int:
        """How many samples the table holds."""
        return int(self.there.sum())

    @property
    def failures(self) -> int:
        """Episodes that failed."""
        return int((self.success == 0).sum())

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return int((self.success == 1).sum())


def choose_steps(
    timesteps: Int64[np.ndarray, " n"], most: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " s"]]:
    """The step of each sample, and the timestep at which each step begins."""
    found, place = np.unique(timesteps, return_inverse=True)
    if len(found) <= most:
        return place.astype(np.int64), found.astype(np.int64)
    size = int(np.ceil((found[-1] + 1) / most))
    begins, place = np.unique(timesteps // size, return_inverse=True)
    return place.astype(np.int64), (begins * size).astype(np.int64)


def table_of_rows(
    rows: Int64[np.ndarray, " n"],
    episode: Int64[np.ndarray, " n"],
    step: Int64[np.ndarray, " n"],
    timesteps: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, "e s"]:
    """The row of each episode and step: the first one where there are several."""
    table = np.full((int(episode.max()) + 1, int(step.max()) + 1), -1, np.int64)
    latest_first = np.argsort(-timesteps, kind="stable")
    table[episode[latest_first], step[latest_first]] = rows[latest_first]
    return table


def episode_steps(dataset: ShardDataset, choice: RowChoice, most_steps: int) -> EpisodeSteps:
    """Reads the table from the index.

    Raises:
        ValueError: if the selection leaves too few episodes or instructions.
    """
    rows = choice.rows(dataset)
    clusters, every = clusters_of_index(dataset.metadata)
    kept, episode = np.unique(every[rows], return_inverse=True)
    timesteps = dataset.index["timestep"].to_numpy().astype(np.int64)[rows]
    step, begins = choose_steps(timesteps, most_steps)
    table = table_of_rows(rows, episode, step, timesteps)
    enough = (table >= 0).sum(0) >= FEWEST_EPISODES
    if len(kept) < FEWEST_EPISODES or enough.sum() < 2:
        raise ValueError(
            f"`DATASET` must hold at least {FEWEST_EPISODES} episodes that share two rollout "
            f"steps, but got {len(kept)} episodes. Collect or select more."
        )
    first = rows[np.unique(episode, return_index=True)[1]]
    texts, text = first_places([t or "" for t in _column(dataset, "instruction", first)])
    if len(texts) < 2:
        raise ValueError(
            f"`DATASET` must hold at least 2 different instructions, but got only {texts[0]!r}. "
            "Collect or select more tasks."
        )
    judged = [np.nan if s is None else float(s) for s in _column(dataset, "success", first)]
    names, task = first_places([clusters.tasks[t] for t in clusters.task_of_episode[kept]])
    return EpisodeSteps(
        rows=table[:, enough], steps=begins[enough], left_out=int((~enough).sum()),
        thinned=len(begins) < len(np.unique(timesteps)), tasks=tuple(names), task=task,
        texts=tuple(texts), text=text, success=np.array(judged),
    )  # fmt: skip


def _column(dataset: ShardDataset, name: str, rows: Int64[np.ndarray, " e"]) -> list:
    return dataset.index.take(rows)[name].to_pylist()


def deal_folds(
    group: Int64[np.ndarray, " e"], folds: int, *, whole: bool, seed: int
) -> Int64[np.ndarray, " e"]:
    """The fold of each episode.

    Args:
        group: the task of each episode.
        folds: how many.
        whole: keep a group in one fold; else deal each group's episodes out to all of them.
        seed: of the dealing.
    """
    random = np.random.default_rng(seed)
    if whole:
        groups = int(group.max()) + 1
        return (random.permutation(groups) % min(folds, groups))[group]
    order = random.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    fold = np.empty(len(group), np.int64)
    fold[order] = np.arange(len(group)) % folds
    return fold
