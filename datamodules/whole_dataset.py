"""`WholeDataset`: every chosen sample once, for what is asked of all vectors, not of a split."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from datamodules.damaged_rows import OnError
from datamodules.feature_source import MAIN
from datamodules.latents import SPLITS, LatentDataModule
from datamodules.source_choice import SourceChoice
from jax_bridge.shards import ShardDataset

Rows = Int64[np.ndarray, "_"]


class MainSources(SourceChoice):
    """The chosen fields alone, without what serves the controls of probes."""

    def sources(
        self, dataset: ShardDataset, rows: Rows, timestep: Int64[np.ndarray, " n"]
    ) -> Iterator[tuple[str, Any]]:
        """Yields the fields."""
        for field in self.fields(dataset):
            yield MAIN, field


class WholeDataset(LatentDataModule):
    """Streams the vectors of all chosen samples, each exactly once over all processes.

    Args:
        path: folder of the data set, or its address such as s3://bucket/data.
        fields: names of fields, context.act_head.input.tokens or vlm.hidden_states.text.mean.
        layer: a layer, a list of them, or all that were captured.
        flow_time: a flow time, a list of them, or all; for expert action.
        rollout_step: a timestep or a list of them; all by default.
        suite: the suite, where the data set holds several.
        task_range: half-open, 0:5.
        episode_range: half-open, of each task's episodes.
        batch_size: samples a batch.
        num_workers: processes that read; 0 reads here, which is fastest for local data.
        on_error: `skip` leaves out samples that are damaged, and counts them.
    """

    def __init__(
        self,
        path: str,
        fields: list[str],
        layer: int | list[int] | Literal["all"] = "all",
        flow_time: float | list[float] | Literal["all"] = "all",
        rollout_step: int | list[int] | None = None,
        suite: str | None = None,
        task_range: str | list[int] | None = None,
        episode_range: str | list[int] | None = None,
        batch_size: int = 1024,
        num_workers: int = 0,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(
            path, fields=fields, layer=layer, flow_time=flow_time, rollout_step=rollout_step,
            suite=suite, task_range=task_range, episode_range=episode_range,
            target="column:timestep", batch_size=batch_size, num_workers=num_workers,
            on_error=on_error,
        )  # fmt: skip
        choice = self._source_choice
        self._source_choice = MainSources(words=choice.words, names=choice.names)

    def _split_rows(self, rows: Rows) -> dict[str, Rows]:
        """Every split is the whole."""
        return dict.fromkeys(SPLITS, rows)
