"""What a comparison leaves behind.

OUT/report.html      one page that needs no other file
OUT/comparison.md    the same, shorter
OUT/comparison.json  every number, and where A and B come from
OUT/dimensions.csv   a line a dimension, the clearest first
OUT/figures/*.png    and .svg
OUT/tensorboard      scalars, histograms, figures, points
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from lightning_modules.comparison.comparison import ComparisonResults
from lightning_modules.comparison.side import Side
from lightning_modules.figures.comparison_figures import SHOWN, clearest, comparison_figures
from lightning_modules.figures.style import save_figure
from lightning_modules.language.report_folder import write_rows
from lightning_modules.provenance import package_versions
from lightning_modules.report.comparison_page import (
    dimension_rows,
    finite_or_none,
    markdown_comparison,
    plain_words,
    render_comparison,
)
from lightning_modules.run_folder import write_json


def write_comparison(
    out: Path,
    a: Side,
    b: Side,
    results: ComparisonResults,
    *,
    notes: Sequence[str],
    points: Mapping[str, Float64[np.ndarray, "n 2"]],
    command: str,
    tensorboard: bool,
) -> Path:
    """Writes everything; returns the page."""
    figures = dict(comparison_figures(a, b, results, points))
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, out / "figures" / f"{name}.png")
    content = {
        "command": command, "a": a.facts, "b": b.facts, "notes": list(notes),
        "words": plain_words(results), "versions": package_versions(), **results.to_json(),
    }  # fmt: skip
    write_json(out / "comparison.json", finite_or_none(content))
    write_rows(out / "dimensions.csv", dimension_rows(results))
    text = markdown_comparison(a, b, results, notes, list(figures))
    (out / "comparison.md").write_text(text, encoding="utf-8")
    if tensorboard:
        write_comparison_events(out / "tensorboard", a, b, results, figures)
    page = out / "report.html"
    page.write_text(render_comparison(a, b, results, notes, figures, command), encoding="utf-8")
    return page


def write_comparison_events(
    folder: Path, a: Side, b: Side, results: ComparisonResults, figures: Mapping[str, Figure]
) -> None:
    """Writes an event file for TensorBoard."""
    with SummaryWriter(folder) as writer:
        for row in results.measures:
            for word in ("value", "null_mean", "p_corrected"):
                writer.add_scalar(f"{row.name}/{word}", getattr(row, word), 0)
        for place in clearest(results)[:SHOWN]:
            for side in (a, b):
                writer.add_histogram(f"dimension_{place}/{side.name}", side.vectors[:, place], 0)
        for name, figure in figures.items():
            writer.add_figure(name, figure, 0, close=False)
        labels = [[side.name, key] for side in (a, b) for key in side.keys]
        vectors = torch.from_numpy(np.concatenate([a.vectors, b.vectors]))
        writer.add_embedding(
            vectors, metadata=labels, metadata_header=["side", "sample"], tag="vectors"
        )
