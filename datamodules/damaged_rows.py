"""Samples that cannot be read, by row number, and why."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from jax_bridge.shards import DamagedShardError

Rows = Int64[np.ndarray, "_"]
OnError = Literal["raise", "skip"]


class DamagedRows(dict[int, str]):
    """What was found so far; each row once."""

    def among(self, rows: Rows) -> Bool[np.ndarray, "_"]:
        """Which of these rows are known to be damaged."""
        return np.isin(rows, np.fromiter(self, np.int64, len(self)))

    def find(self, read: Callable[[Rows], object], rows: Rows) -> Bool[np.ndarray, "_"]:
        """Reads rows one by one, notes those that cannot be read, and says which they are."""
        for row in rows[~self.among(rows)]:
            try:
                read(np.asarray([row]))
            except DamagedShardError as error:
                self[int(row)] = str(error)
        return self.among(rows)
