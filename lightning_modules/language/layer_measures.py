"""All that is measured of one expert at one layer, in two readings of its latents.

Letters: e episodes, s steps, c cells, d width, k dimensions of the embedding, i instructions,
q sums.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from jax_bridge.shards import ShardDataset
from lightning_modules.language.drift import drift
from lightning_modules.language.episode_steps import EpisodeSteps
from lightning_modules.language.fold_ridge import FoldReadings, FoldRidge
from lightning_modules.language.hsic import FEWEST, hsic, hsic_without_each, kernel
from lightning_modules.language.instruction_table import compare_readings
from lightning_modules.language.jackknife import JackknifeSums
from lightning_modules.language.latent_source import LatentSource
from lightning_modules.language.separability import variance_sums

Blocks = list[Int64[np.ndarray, "_"]]
QUANTITIES: tuple[str, ...] = ("language_loss", "rank", "cosine_to_first", "l2_to_first")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instructions:
    """The embeddings and which episode has which, and which fold each episode is in."""

    table: Float64[np.ndarray, "i k"]
    text: Int64[np.ndarray, " e"]
    fold: Int64[np.ndarray, " e"]

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1


class LayerMeasures:
    """Values a sample, and sums a step; NaN where an episode has no sample."""

    def __init__(self, steps: EpisodeSteps, cells: int) -> None:
        shape = (*steps.rows.shape, cells)
        self.values = {name: np.full(shape, np.nan) for name in QUANTITIES}
        self.nearest = np.full(shape, -1, np.int64)
        """The instruction that the reading is nearest to; -1 where there is no sample."""
        self.separability = JackknifeSums()
        self.alignment = JackknifeSums()
        """HSIC with the embeddings."""


def blocks_of(episodes: int, bytes_an_episode: int, memory: int, seed: int) -> Blocks:
    """Episodes in random blocks that fit the memory, so that each block holds all tasks."""
    size = max(4 * FEWEST, memory // max(1, bytes_an_episode))
    order = np.random.default_rng(seed).permutation(episodes)
    return [np.sort(part) for part in np.array_split(order, -(-episodes // size))]


class LatentBlocks:
    """Reads blocks of episodes; what fits in one block is read once."""

    def __init__(
        self, dataset: ShardDataset, source: LatentSource, steps: EpisodeSteps, blocks: Blocks
    ) -> None:
        self._dataset, self._source, self._steps, self._blocks = dataset, source, steps, blocks
        self._kept: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, place: int) -> Float32[np.ndarray, "e s c d"]:
        if self._kept is not None:
            return self._kept
        latents = self._source.read(self._dataset, self._steps.rows[self._blocks[place]])
        if len(self._blocks) == 1:
            self._kept = latents
        return latents


def measure_layer(
    latents: LatentBlocks,
    steps: EpisodeSteps,
    instructions: Instructions,
    blocks: Blocks,
) -> LayerMeasures:
    """Measures one expert at one layer, all its flow times.

    Raises:
        ValueError: if a latent is NaN or infinite.
    """
    ridge, found = None, None
    for place, episodes in enumerate(blocks):
        values = latents[place]
        there = steps.there[episodes]
        if found is None or ridge is None:
            cells, width = values.shape[2:]
            found = LayerMeasures(steps, cells)
            size = instructions.table.shape[1]
            ridge = FoldRidge(instructions.folds, cells, width, size)
        _, of_row = _embeddings(instructions, episodes, there)
        ridge.add(values[there], instructions.table[of_row], _folds(instructions, episodes, there))
        cosine, distance = drift(values, there)
        found.values["cosine_to_first"][episodes] = cosine
        found.values["l2_to_first"][episodes] = distance
        found.separability.add(*step_separability(values, there, instructions.text[episodes]))
        embedded = instructions.table[instructions.text[episodes]]
        every = np.broadcast_to(embedded[:, None, None], (*there.shape, 1, embedded.shape[1]))
        found.alignment.add(*step_hsic(values, every, there))
    assert ridge is not None
    assert found is not None
    _read(latents, steps, instructions, blocks, ridge.solve(), found)
    return found


def _read(
    latents: LatentBlocks,
    steps: EpisodeSteps,
    instructions: Instructions,
    blocks: Blocks,
    readings: FoldReadings,
    found: LayerMeasures,
) -> None:
    for place, episodes in enumerate(blocks):
        there = steps.there[episodes]
        where, of_row = _embeddings(instructions, episodes, there)
        said = readings.read(latents[place][there], _folds(instructions, episodes, there))
        loss, rank, nearest = compare_readings(said, instructions.table, of_row)
        found.values["language_loss"][where] = loss
        found.values["rank"][where] = rank
        found.nearest[where] = nearest


def _embeddings(
    instructions: Instructions, episodes: Int64[np.ndarray, " e"], there: Bool[np.ndarray, "e s"]
) -> tuple[tuple[np.ndarray, np.ndarray], Int64[np.ndarray, " n"]]:
    row, step = np.nonzero(there)
    return (episodes[row], step), instructions.text[episodes[row]]


def _folds(
    instructions: Instructions, episodes: Int64[np.ndarray, " e"], there: Bool[np.ndarray, "e s"]
) -> Int64[np.ndarray, " n"]:
    return instructions.fold[episodes[np.nonzero(there)[0]]]


def step_separability(
    latents: Float32[np.ndarray, "e s c d"],
    there: Bool[np.ndarray, "e s"],
    text: Int64[np.ndarray, " e"],
) -> tuple[Float64[np.ndarray, "5 s c"], Float64[np.ndarray, "e 5 s c"]]:
    """Sums of squares at each step, of all episodes and without each."""
    e, s, c, _ = latents.shape
    total, without = np.full((5, s, c), np.nan), np.full((e, 5, s, c), np.nan)
    for step in range(s):
        here = np.flatnonzero(there[:, step])
        if len(here) >= FEWEST and len(np.unique(text[here])) > 1:
            total[:, step], without[here, :, step] = variance_sums(latents[here, step], text[here])
    return total, without


def step_hsic(
    one: Float32[np.ndarray, "e s c d"] | Float64[np.ndarray, "e s c d"],
    two: Float32[np.ndarray, "e s _c _d"] | Float64[np.ndarray, "e s _c _d"],
    there: Bool[np.ndarray, "e s"],
) -> tuple[Float64[np.ndarray, "3 s _m"], Float64[np.ndarray, "e 3 s _m"]]:
    """HSIC between both, of the first and of the second, at each step; without each episode too.

    One of them may have a single cell, which is compared with every cell of the other.
    """
    e, s = there.shape
    cells = max(one.shape[2], two.shape[2])
    total, without = np.full((3, s, cells), np.nan), np.full((e, 3, s, cells), np.nan)
    for step in range(s):
        here = np.flatnonzero(there[:, step])
        if len(here) < FEWEST:
            continue
        a, b = kernel(one[here, step]), kernel(two[here, step])
        for place, (x, y) in enumerate(((a, b), (a, a), (b, b))):
            total[place, step] = hsic(*np.broadcast_arrays(x, y))
            without[here, place, step] = hsic_without_each(*np.broadcast_arrays(x, y)).T
    return total, without
