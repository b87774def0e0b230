"""A card for TensorBoard: scalars, histograms, figures, and vectors for the projector."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from lightning_modules.context.card import Card
from lightning_modules.tensorboard_extras import main_coordinates

HISTOGRAMS: tuple[str, ...] = ("mean", "std", "skew")


def write_card_events(folder: Path, card: Card, figures: Mapping[str, Figure]) -> None:
    """Writes an event file."""
    with SummaryWriter(folder) as writer:
        for cell in card.cells:
            name = cell.cell.name
            for word, value in cell.facts.items():
                if isinstance(value, int | float):
                    writer.add_scalar(f"{word}/{name}", value, 0)
            for word, column in cell.table.columns().items():
                known = column[np.isfinite(column)] if word in HISTOGRAMS else np.empty(0)
                if len(known):
                    writer.add_histogram(f"{word}_of_dimensions/{name}", known, 0)
            vectors, units, rows = cell.kept
            if len(vectors) > 1:
                labels = [[str(unit), str(row)] for unit, row in zip(units, rows, strict=True)]
                writer.add_embedding(
                    main_coordinates(torch.from_numpy(np.ascontiguousarray(vectors))),
                    metadata=labels, metadata_header=["episode", "row"], tag=name,
                )  # fmt: skip
        for name, figure in figures.items():
            writer.add_figure(name, figure, 0, close=False)
