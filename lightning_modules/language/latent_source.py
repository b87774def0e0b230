"""The experts that a report compares, and reading their latents by blocks of episodes.

Letters: e episodes, s steps, c cells, d width.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from datamodules.cell import Cell
from datamodules.field_choice import FieldChoice, choose_field
from jax_bridge.shards import ShardDataset
from lightning_modules.language.options import LanguageOptions

ROWS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSource:
    """An expert, at some layers and flow times."""

    expert: str
    """`vlm`, `text_only` or `action`."""
    field: FieldChoice

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Its cells, layer first."""
        return self.field.cells

    @property
    def layers(self) -> tuple[int | None, ...]:
        """Its layers."""
        return self.field.layers or (None,)

    def at_layer(self, layer: int | None) -> "LatentSource":
        """The same expert at one layer, all flow times."""
        if layer is None:
            return self
        field = dataclasses.replace(self.field, layers=(layer,))
        return dataclasses.replace(self, field=field)

    def at_flow_times(self, start: int, stop: int) -> "LatentSource":
        """The same expert at some of its flow times."""
        if self.field.flow_times is None:
            return self
        field = dataclasses.replace(self.field, flow_times=self.field.flow_times[start:stop])
        return dataclasses.replace(self, field=field)

    def read(
        self, dataset: ShardDataset, rows: Int64[np.ndarray, "e s"]
    ) -> Float32[np.ndarray, "e s c d"]:
        """The latents of a block of episodes; NaN where there is no sample.

        Raises:
            ValueError: if a latent is NaN or infinite; names the sample and the field.
        """
        shape = (*rows.shape, len(self.cells), self.field.width)
        found = np.full(shape, np.nan, np.float32)
        places = np.argwhere(rows >= 0)
        for start in range(0, len(places), ROWS_AT_ONCE):
            here = tuple(places[start : start + ROWS_AT_ONCE].T)
            values = self.field.read(dataset, rows[here]).float().numpy()
            finite = np.isfinite(values).reshape(len(values), -1).all(1)
            if not finite.all():
                bad = rows[here][finite.argmin()]
                raise ValueError(
                    f"`DATASET` must hold finite latents, but {self.field.spec.name} of sample "
                    f"{dataset.index['key'][int(bad)]} in {dataset.path} is NaN or infinite. "
                    "Leave that episode out, or capture it again."
                )
            found[here] = values
        return found


def chunks_of_cells(source: LatentSource, per_cell: int, memory: int) -> Iterator[LatentSource]:
    """The source at one layer after another, so many flow times at once as fit the memory."""
    at_once = max(1, memory // max(per_cell, 1))
    for layer in source.layers:
        here = source.at_layer(layer)
        for start in range(0, len(here.cells), at_once):
            yield here.at_flow_times(start, start + at_once)


def sources_of(
    dataset: ShardDataset, options: LanguageOptions
) -> tuple[list[LatentSource], list[str]]:
    """The experts that the data set holds, and what is said of those that it does not.

    Raises:
        ValueError: if none of them was captured, or a layer or flow time was not.
    """
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("vlm", {"expert": "vlm", "region": options.vlm_region}),
        ("text_only", {"expert": "text_only", "region": None}),
        ("action", {"expert": "action", "region": None}),
    ]
    found, missing = [], []
    for expert, words in wanted:
        words |= {"site": options.site, "pool": "mean"}
        try:
            choose_field(dataset.fields, **words)
        except ValueError as error:
            missing.append(f"expert {expert} is left out: {error}")
            continue
        time = options.flow_time if expert == "action" else "all"
        field = choose_field(dataset.fields, **words, layer=options.layer, flow_time=time)
        found.append(LatentSource(expert=expert, field=field))
    if not found:
        raise ValueError(missing[0].partition(": ")[2])
    return found, missing
