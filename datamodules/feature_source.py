"""Where the features of a grid's cells come from.

Letters: b batch, c cells, d width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from datamodules.cell import Cell
from jax_bridge.shards import ShardDataset

MAIN = "main"
"""The kind of the sources that are asked about; every other kind serves a control."""


@runtime_checkable
class FeatureSource(Protocol):
    """Gives some rows' features of a few cells, all of one width.

    A source travels to worker processes, so it must be picklable.
    """

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells, in the order of the features."""
        ...

    @property
    def width(self) -> int:
        """Numbers a cell."""
        ...

    @property
    def name(self) -> str:
        """How an error names it."""
        ...

    @property
    def identity(self) -> str:
        """What tells its features from those of another source on the same data and rows."""
        ...

    def read(self, dataset: ShardDataset, rows: Shaped[np.ndarray, " b"]) -> Float[Tensor, "b c d"]:
        """Reads the features of these rows, in the type in which they were stored."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """What a probe grid must know of a source, in plain types."""

    kind: str
    """`main`, or the control that it serves: `proprioception`, `time`, `untrained`."""
    cells: tuple[Cell, ...]
    width: int

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {"kind": self.kind, "cells": [c.to_json() for c in self.cells], "width": self.width}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "SourceSpec":
        """Reads what `to_json` wrote."""
        cells = tuple(Cell.from_json(cell) for cell in entry["cells"])
        return cls(kind=entry["kind"], cells=cells, width=entry["width"])
