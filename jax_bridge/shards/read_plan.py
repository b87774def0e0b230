"""`ReadPlan`: in which order samples are read, and by whom.

The order is a pure function of (seed, epoch, rows); the position is one integer, the number of
rows of that order that are done. So a position can be taken up by another number of workers.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.stable_hash import mix, stable_hash


class ReadPlan:
    """Who reads which rows when.

    Args:
        rows: row numbers of the index, each once.
        seed: of the shuffling.
        shuffle: another order each epoch; otherwise that of `rows`.

    Raises:
        ValueError: if `rows` is no list of numbers.
    """

    def __init__(self, rows: np.ndarray, seed: int = 0, shuffle: bool = True) -> None:
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise ValueError(
                f"`rows` must be a vector of row numbers, but got {rows.dtype} {rows.shape}."
            )
        self.rows: Int64[np.ndarray, " n"] = rows.astype(np.int64)
        self.seed = seed
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(self.rows)

    def order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        """All rows, in the order of this epoch."""
        if not self.shuffle:
            return self.rows.copy()
        ranks = mix(self.rows, stable_hash("epoch", self.seed, epoch))
        return self.rows[np.argsort(ranks, kind="stable")]

    def steps(
        self,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        start: int = 0,
    ) -> int:
        """Batches that a rank reads: rank 0 the most; with `drop_last` all the same."""
        whole = batch_size * world_size
        steps, rest = divmod(max(0, len(self) - start), whole)
        return steps + int(not drop_last and rest > rank)

    def spare(self, row: int, epoch: int, attempt: int = 0) -> int:
        """Another row of the plan, to be read where `row` cannot be; a pure function as well.

        Args:
            row: the row that cannot be read.
            epoch: of the reading, so that it is another one each epoch.
            attempt: how many spare rows could not be read either.
        """
        place = stable_hash("spare", self.seed, epoch, row, attempt) % len(self.rows)
        return int(self.rows[place])

    def batches(
        self,
        epoch: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        num_workers: int = 1,
        drop_last: bool = False,
        start: int = 0,
    ) -> Iterator[Int64[np.ndarray, " b"]]:
        """The batches of one worker of one rank.

        A step takes the next `batch_size * world_size` rows of the order, cut evenly between the
        ranks; step s is read by worker `s % num_workers` of each rank, as torch's loader collects
        them. Over all ranks and workers each row comes exactly once. The rows of an incomplete
        last step are dropped, or shared out evenly, so that a rank may get none.

        Args:
            epoch: which order.
            batch_size: rows a batch.
            rank: of the process that reads.
            world_size: number of processes.
            worker: of this process.
            num_workers: of each process; 1 without workers.
            drop_last: leave out the incomplete last step; then all ranks make equal steps.
            start: rows of the order that are done already.

        Raises:
            ValueError: if a number is out of range.
        """
        for name, value, limit in (("rank", rank, world_size), ("worker", worker, num_workers)):
            if not 0 <= value < limit:
                raise ValueError(f"`{name}` must lie in [0, {limit}), but got {value}.")
        if batch_size < 1 or start < 0:
            raise ValueError(
                f"`batch_size` must be positive and `start` not negative, but got {batch_size} "
                f"and {start}."
            )
        return self._batches(
            self.order(epoch)[start:],
            batch_size,
            (rank, world_size),
            (worker, num_workers),
            drop_last,
        )

    def _batches(
        self,
        order: np.ndarray,
        batch_size: int,
        ranks: tuple[int, int],
        workers: tuple[int, int],
        drop_last: bool,
    ) -> Iterator[np.ndarray]:
        (rank, world_size), (worker, num_workers) = ranks, workers
        whole = batch_size * world_size
        for step, begin in enumerate(range(0, len(order), whole)):
            rows = order[begin : begin + whole]
            if step % num_workers != worker or (drop_last and len(rows) < whole):
                continue
            share = np.array_split(rows, world_size)[rank]
            if len(share):
                yield share
