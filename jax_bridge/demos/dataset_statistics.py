"""`norm_stats.json` of a data set of demonstrations.

As openpi counts: every action of every chunk, the repeated ones behind an episode's end included.

Source: openpi, scripts/compute_norm_stats.py.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from jax_bridge.demos.chunk_stream import ChunkStream, OnRows
from jax_bridge.policies.data_statistics import Counted, count_statistics
from jax_bridge.policies.normalisation import NormStats
from jax_bridge.shards.file_layer import LOCAL_FILES, write_error

REPORT = "norm_stats.report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetStatistics:
    """What was counted."""

    state: Counted
    """Of no dimensions where the robot's state was not recorded."""
    actions: Counted

    def usable(self) -> "DatasetStatistics":
        """The same, with the full range of dimensions that seldom move for their percentiles."""
        return DatasetStatistics(
            state=self.state.with_full_range(self.state.seldom_moving),
            actions=self.actions.with_full_range(self.actions.seldom_moving),
        )

    @property
    def norm_stats(self) -> NormStats:
        """What is written."""
        return NormStats(state=self.state.statistics, actions=self.actions.statistics)


def dataset_statistics(
    stream: ChunkStream, *, memory: int = 2**30, on_rows: OnRows | None = None
) -> DatasetStatistics:
    """Streams states and actions; nothing is held beyond `memory` bytes.

    Raises:
        ValueError: if a state or an action is not finite.
    """

    def actions() -> Iterator[Float64[np.ndarray, "_ _d"]]:
        for _, chunks in stream.chunks(on_rows):
            yield chunks.reshape(-1, chunks.shape[2])

    def states() -> Iterator[Float64[np.ndarray, "_ _s"]]:
        return stream.states(on_rows)

    recorded = stream.sizes.state_dim is not None
    return DatasetStatistics(
        state=count_statistics("state", states, memory=memory)
        if recorded
        else Counted.nothing("state"),
        actions=count_statistics("actions", actions, memory=memory),
    )


def write_statistics(
    path: Path, found: DatasetStatistics, stream: ChunkStream, *, widened: bool
) -> None:
    """Writes `norm_stats.json`, and beside it what openpi's file has no place for.

    Args:
        path: of `norm_stats.json`.
        found: as counted.
        stream: what was read.
        widened: whether dimensions that seldom move get their full range.

    Raises:
        OSError: if the disk refuses.
    """
    report: dict[str, Any] = {
        "dataset": stream.dataset.fingerprint,
        "samples": len(stream.rows),
        "delta_mask": stream.delta_mask,
    }
    for name, counted in (("state", found.state), ("actions", found.actions)):
        report[name] = {
            "rows": counted.rows,
            "quantile_error": counted.quantile_error.tolist(),
            "degenerate": counted.degenerate,
            "full_range": counted.seldom_moving if widened else [],
        }
    kept = found.usable() if widened else found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for place, content in (
            (path, kept.norm_stats.to_json()),
            (path.with_name(REPORT), report),
        ):
            LOCAL_FILES.write_whole(place, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise write_error(error, path) from error
