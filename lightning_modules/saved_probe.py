"""A trained probe as one safetensors file, with everything that is needed to apply it.

RUN/probe.safetensors holds, for each field number i, the best maps of its cells:

    i.weight [cells, width, size]    i.bias [cells, size]
    i.mean [cells, width]            i.std [cells, width]

and as metadata (JSON) the cells' names, the target with its classes or its table of vectors, the
objective, and which data it was trained on. The outputs of a cell are

    (features - mean) / std @ weight + bias

class scores for a target with classes (the largest is the answer), else a vector (compared by
cosine with the rows of the table, where there is one; both centred on the target's `trivial`).

Letters: b batch, c cells, d width, k classes or dimensions.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.cell import Cell
from datamodules.target_spec import TargetSpec
from lightning_modules.grid_product import standardised_product
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.nearest_row import nearest_row
from lightning_modules.probe_group import FeatureScaler

FORMAT = "vla-lens-probe"
VERSION = 1
FILE = "probe.safetensors"
PARTS = ("weight", "bias", "mean", "std")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedField:
    """The probes of one field."""

    cells: tuple[Cell, ...]
    weight: Float[Tensor, "c d k"]
    bias: Float[Tensor, "c k"]
    mean: Float[Tensor, "c d"]
    std: Float[Tensor, "c d"]

    def outputs(self, features: Float[Tensor, "b c d"]) -> Float[Tensor, "b c k"]:
        """Class scores or vectors of every cell.

        Args:
            features: as captured, not normalised: the cells in the order of `cells`.
        """
        return standardised_product(features, self.mean, self.std, self.weight) + self.bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedProbe:
    """What the file holds."""

    fields: tuple[SavedField, ...]
    target: TargetSpec
    """With the digest of what its values were estimated from (`basis`)."""
    objective: str
    fingerprint: str
    """Of the data set that it was trained on."""
    split: dict[str, Any]

    def answers(self, outputs: Float[Tensor, "b c k"]) -> Int[Tensor, "b c"]:
        """The class, or the row of the target's table that is nearest.

        Raises:
            ValueError: if the target has neither classes nor a table.
        """
        if self.target.classes:
            return outputs.argmax(-1)
        return nearest_row(outputs, self.target)

    def names(self) -> tuple[str, ...]:
        """What the answers stand for."""
        return self.target.classes or self.target.table_names


def save_probe(module: LinearProbe, path: Path) -> None:
    """Writes the best maps of all cells that are asked about; at once or not at all."""
    assert module.spec is not None
    tensors: dict[str, Tensor] = {}
    cells: list[list[dict[str, Any]]] = []
    for group in module.probe_groups:
        if not group.spec.is_main:
            continue
        scaler, own = cast(FeatureScaler, module.scalers[group.spec.source]), group.spec.places
        parts = (group.best_weight, group.best_bias, scaler.mean[own], scaler.std[own])
        for name, values in zip(PARTS, parts, strict=True):
            assert isinstance(values, Tensor)
            tensors[f"{len(cells)}.{name}"] = values.detach().float().cpu().contiguous()
        cells.append([cell.to_json() for cell in group.spec.cells])
    described = {
        "cells": cells, "target": module.spec.target.to_json(), "objective": module.trained_for,
        "fingerprint": module.spec.fingerprint, "split": module.spec.split,
    }  # fmt: skip
    metadata = {"format": FORMAT, "version": str(VERSION), "probe": json.dumps(described)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata)
    part.replace(path)


def load_probe(path: Path) -> SavedProbe:
    """Reads a file that `vla-lens fit` wrote.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is not a probe of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a probe, but {path} is not there. `vla-lens fit` writes RUN/{FILE}."
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, str(VERSION)):
                raise ValueError(
                    f"`path` must be a probe of version {VERSION}, but got {path}, which is "
                    f"{metadata.get('format')} of version {metadata.get('version')}. "
                    f"`vla-lens fit` writes RUN/{FILE}."
                )
            described = json.loads(metadata["probe"])
            fields = tuple(
                SavedField(
                    cells=tuple(Cell.from_json(cell) for cell in cells),
                    **{name: file.get_tensor(f"{number}.{name}") for name in PARTS},
                )
                for number, cells in enumerate(described["cells"])
            )
    except SafetensorError as error:
        raise ValueError(
            f"`path` must be a safetensors file, but {path} cannot be read as one ({error}). "
            f"`vla-lens fit` writes RUN/{FILE}."
        ) from error
    return SavedProbe(
        fields=fields, target=TargetSpec.from_json(described["target"]),
        objective=described["objective"], fingerprint=described["fingerprint"],
        split=described["split"],
    )  # fmt: skip


class ProbeFile(pl.Callback):
    """Writes RUN/probe.safetensors when a fit ends."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the best maps."""
        assert isinstance(pl_module, LinearProbe)
        folder = trainer.log_dir  # asked on all ranks: rank 0 tells the others
        if folder is not None and trainer.is_global_zero and not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            save_probe(pl_module, Path(folder) / FILE)
