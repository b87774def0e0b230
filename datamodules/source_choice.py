"""Which sources of features a selection means: fields, and what the controls read."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from datamodules.content_digest import content_digest
from datamodules.control_sources import (
    RobotStateSource,
    TimeSource,
    UntrainedSource,
    has_robot_state,
    partner_rows,
)
from datamodules.feature_source import MAIN, FeatureSource
from datamodules.field_choice import FieldChoice, choose_field, choose_fields
from jax_bridge.shards import ShardDataset, open_dataset

Rows = Int64[np.ndarray, "_"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceChoice:
    """The words of a selection that say what is read."""

    words: Mapping[str, Any]
    """expert, site, region, pool, layer and flow_time."""
    names: list[str] | None = None
    """Several fields by name, in place of the first four words."""
    control_data: str | None = None
    """Folder of the same samples from an untrained policy."""

    def fields(self, dataset: ShardDataset) -> tuple[FieldChoice, ...]:
        """The fields that are asked about.

        Raises:
            ValueError: if a field, a layer or a flow time was not captured.
        """
        if self.names is None:
            return (choose_field(dataset.fields, **self.words),)
        places = {word: self.words[word] for word in ("layer", "flow_time")}
        return choose_fields(dataset.fields, self.names, **places)

    def sources(
        self, dataset: ShardDataset, rows: Rows, timestep: Int64[np.ndarray, " n"]
    ) -> Iterator[tuple[str, FeatureSource]]:
        """Yields every source with its kind; what the data cannot give is left out.

        Args:
            dataset: the data.
            rows: the selected rows.
            timestep: of each row of the index.

        Raises:
            ValueError: if the control data lack a field, a layer or a sample.
            FileNotFoundError: if the control data are not there.
        """
        for field in self.fields(dataset):
            yield MAIN, field
        if self.control_data is not None:
            control = open_dataset(self.control_data)
            there, content = partner_rows(dataset, control, rows), content_digest(control)
            for choice in self.fields(control):
                yield (
                    "untrained",
                    UntrainedSource(
                        self.control_data, choice=choice, row_there=there, content=content
                    ),
                )
        if has_robot_state(dataset, rows):
            state = dataset.read_robot("state", rows=rows, on_error="skip")[:1]
            if state.size:
                yield "proprioception", RobotStateSource(state.size)
        yield "time", TimeSource(timestep, longest=int(timestep[rows].max()))
