"""In which order samples of several data sets are trained with, as a pure function of a place.

Place g of the global order belongs to the data set that a shuffled pattern of `PERIOD` places
names, so that the shares hold in every stretch; inside a data set, each epoch has an order of its
own. A batch is so many consecutive places, cut evenly between the processes: the order of the whole
does not depend on their number, and one integer says where the reading stands.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards import ReadPlan, ShardDataset
from jax_bridge.shards.sample_choice import SampleChoice
from jax_bridge.shards.stable_hash import mix, stable_hash

PERIOD = 10_000
"""Places after which the pattern repeats: shares are kept to one part in as many."""
ENDLESS = 2**40
"""Steps that a source has."""


class Mixture:
    """Which sample stands at which place.

    Args:
        rows: of each data set.
        weights: share of each.
        seed: of pattern and orders.
    """

    def __init__(
        self, rows: Sequence[Int64[np.ndarray, "_"]], weights: Sequence[float], seed: int
    ) -> None:
        self._plans = [ReadPlan(own, seed=seed) for own in rows]
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        ends = np.round(np.cumsum(shares) * PERIOD).astype(np.int64)
        which = np.searchsorted(ends, np.arange(PERIOD), side="right")
        ranks = mix(np.arange(PERIOD, dtype=np.int64), stable_hash("mixture", seed))
        self._pattern = which[np.argsort(ranks, kind="stable")]
        self._before = np.zeros(PERIOD, np.int64)
        self._each = np.bincount(self._pattern, minlength=len(rows))
        for number in range(len(rows)):
            own = self._pattern == number
            self._before[own] = np.arange(own.sum())
        self._orders: dict[tuple[int, int], Int64[np.ndarray, " n"]] = {}

    def at(self, place: int) -> tuple[int, int]:
        """Number of the data set, and row."""
        turn, spot = divmod(place, PERIOD)
        number = int(self._pattern[spot])
        index = turn * int(self._each[number]) + int(self._before[spot])
        epoch, offset = divmod(index, len(self._plans[number]))
        return number, int(self._order(number, epoch)[offset])

    def _order(self, number: int, epoch: int) -> Int64[np.ndarray, " n"]:
        """Readers ahead stand in the next epoch while others are in this one: two are kept."""
        key = (number, epoch)
        if key not in self._orders:
            self._orders[key] = self._plans[number].order(epoch)
            for old in [k for k in self._orders if k[0] == number and k[1] < epoch - 1]:
                del self._orders[old]
        return self._orders[key]


class MixtureSource:
    """A random-access source for grain: what one process reads of each step, from some step on.

    Args:
        datasets: what is read.
        mixture: the order.
        choices: which parts of a sample, for each data set.
        batch_size: samples a step, over all processes.
        rank: of this process.
        world_size: of all processes.
        step: steps that are done.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        mixture: Mixture,
        choices: Sequence[SampleChoice],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        step: int = 0,
    ) -> None:
        self._datasets, self._mixture, self._choices = list(datasets), mixture, list(choices)
        self._batch_size, self._own = batch_size, batch_size // world_size
        self._first = rank * self._own
        self._step = step
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return ENDLESS

    def __repr__(self) -> str:
        return f"MixtureSource({[str(d.path) for d in self._datasets]}, step {self._step})"

    def __getstate__(self) -> dict[str, Any]:
        """A worker process opens the data sets itself."""
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes up what was sent to a worker process."""
        self.__dict__ |= state
        self._datasets = [dataset.again() for dataset in self._datasets]
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        """Reads this process's samples of one step, each data set's at once.

        Returns:
            What `SampleChoice.read` gives of each, and under `dataset` the data set's number.
        """
        first = (self._step + int(index)) * self._batch_size + self._first
        # grain reads from many threads, and a data set has one table of what it knows.
        with self._lock:
            places = [self._mixture.at(first + offset) for offset in range(self._own)]
            found: list[dict[str, Any]] = [{} for _ in places]
            for number in sorted({number for number, _ in places}):
                own = [spot for spot, (which, _) in enumerate(places) if which == number]
                rows = np.asarray([places[spot][1] for spot in own], np.int64)
                read = self._choices[number].read(self._datasets[number], rows)
                for spot, sample in zip(own, read, strict=True):
                    found[spot] = {**sample, "dataset": number}
        return found
