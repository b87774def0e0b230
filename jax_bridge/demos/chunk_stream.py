"""All states and action chunks of a data set, batch by batch.

Letters: n rows; h horizon; a action dimensions; s of a state.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64, Int64

from jax_bridge.demos.description import Demonstrations, demonstrations_of
from jax_bridge.shards import ShardDataset

OnRows = Callable[[int], None]
"""Told how many rows were read since it was told last."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ChunkStream:
    """What is read of a data set of demonstrations."""

    dataset: ShardDataset
    rows: Int64[np.ndarray, " n"]
    """Which samples, by row number."""
    delta_mask: tuple[bool, ...] | None = None
    """Action dimensions that are taken relative to the state; None where none is."""
    batch_rows: int = 4096

    @classmethod
    def of(
        cls,
        dataset: ShardDataset,
        *,
        success_only: bool = False,
        delta_mask: tuple[bool, ...] | None = None,
    ) -> "ChunkStream":
        """All demonstrations, or those that reached their goal.

        Raises:
            ValueError: if the data set holds no demonstrations, or none is left.
        """
        demonstrations_of(dataset.info, dataset.path)
        rows = dataset.select({"success": True} if success_only else None)
        if not len(rows):
            raise ValueError(
                f"`dataset` must hold demonstrations{' that succeeded' if success_only else ''}, "
                f"but none of the {len(dataset)} samples of {dataset.path} is one."
            )
        return cls(dataset=dataset, rows=rows, delta_mask=delta_mask)

    @property
    def sizes(self) -> Demonstrations:
        """Horizon and dimensions."""
        return demonstrations_of(self.dataset.info, self.dataset.path)

    def part(self, rows: Int64[np.ndarray, " n"]) -> "ChunkStream":
        """The same stream over other rows."""
        return dataclasses.replace(self, rows=rows)

    def states(self, on_rows: OnRows | None = None) -> Iterator[Float64[np.ndarray, "_ _s"]]:
        """States, in robot units."""
        for rows in self._batches(on_rows):
            yield self.dataset.read_robot("state", rows=rows).astype(np.float64)

    def chunks(
        self, on_rows: OnRows | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n h a"]]]:
        """Row numbers, and their chunks in robot units, relative where `delta_mask` says so."""
        for rows in self._batches(on_rows):
            actions = self.dataset.read_robot("actions", rows=rows).astype(np.float64)
            if self.delta_mask is not None:
                state = self.dataset.read_robot("state", rows=rows).astype(np.float64)
                size = len(self.delta_mask)
                moved = np.where(np.asarray(self.delta_mask), state[:, :size], 0.0)
                actions[..., :size] -= moved[:, None]
            yield rows, actions

    def _batches(self, on_rows: OnRows | None) -> Iterator[Int64[np.ndarray, " n"]]:
        for start in range(0, len(self.rows), self.batch_rows):
            rows = self.rows[start : start + self.batch_rows]
            yield rows
            if on_rows is not None:
                on_rows(len(rows))
