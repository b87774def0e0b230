"""What a card leaves behind.

OUT/card.md               what to read: words, a table, the figures
OUT/card.json             every number of a cell, settings, versions
OUT/dimensions/CELL.csv   a line a dimension
OUT/figures/*.png         and .svg
OUT/tensorboard           scalars, histograms, figures, points
"""

import csv
import re
from pathlib import Path

from matplotlib.figure import Figure

from lightning_modules.context.card import Card, CellCard, words_of
from lightning_modules.context.tensorboard_card import write_card_events
from lightning_modules.figures.context_figures import card_figures
from lightning_modules.figures.style import save_figure
from lightning_modules.run_folder import write_json


def file_name(name: str) -> str:
    """A name that any file system takes."""
    return re.sub(r"[^\w.-]+", "_", name)


def write_card(out: Path, card: Card, *, tensorboard: bool) -> None:
    """Writes everything."""
    figures = dict(card_figures(card))
    write_json(out / "card.json", card.to_json())
    for cell in card.cells:
        write_dimensions(out / "dimensions" / f"{file_name(cell.cell.name)}.csv", cell)
    for name, figure in figures.items():
        save_figure(figure, out / "figures" / f"{file_name(name)}.png")
    (out / "card.md").write_text(markdown(card, figures), encoding="utf-8")
    if tensorboard:
        write_card_events(out / "tensorboard", card, figures)


def write_dimensions(path: Path, cell: CellCard) -> None:
    """One line a dimension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = cell.columns()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["dimension", *columns])
        for place, values in enumerate(zip(*(c.tolist() for c in columns.values()), strict=True)):
            writer.writerow([place, *("" if value != value else value for value in values)])


def markdown(card: Card, figures: dict[str, Figure]) -> str:
    """The card as text."""
    data = card.data
    lines = [
        f"# Vectors of {Path(data['path']).name}",
        "",
        f"{data['samples']} samples of {data['episodes']} episodes; "
        f"model {data['model'].get('preset') or data['model'].get('class') or 'not recorded'}, "
        f"parameters {str(data['model'].get('params_digest') or 'not recorded')[:12]}; "
        f"fingerprint {data['fingerprint'][:12]}.",
        "",
    ]
    if data["unreadable"]:
        lines += [f"**{len(data['unreadable'])} samples cannot be read** and are left out.", ""]
    if data["dropped_without_valid_token"]:
        lines += [f"{data['dropped_without_valid_token']} samples have no valid token.", ""]
    for cell in card.cells:
        lines += cell_lines(cell, figures)
    if "over_layers" in figures:
        lines += ["## All cells", "", "![over layers](figures/over_layers.png)", ""]
    lines += ["Every number of every dimension is in `dimensions/`, the others in `card.json`.", ""]
    return "\n".join(lines)


def cell_lines(cell: CellCard, figures: dict[str, Figure]) -> list[str]:
    """One cell of the card."""
    facts, table = cell.facts, cell.table
    name = cell.cell.name
    rows = [
        ("vectors", f"{table.count}"),
        ("dimensions", f"{facts['width']}"),
        ("length", f"{facts['length_mean']:.4g} ± {facts['length_std']:.3g}"),
        ("mean of the dimensions' means", f"{facts['mean_of_means']:.4f}"),
        ("std of the dimensions' means", f"{facts['std_of_means']:.4f}"),
        ("median std", f"{facts['median_std']:.4f}"),
    ]
    if cell.spectrum is not None:
        rows.append(("effective rank", f"{facts['effective_rank']:.1f}"))
    lines = [f"## {name}", "", *(f"- {line}" for line in words_of(cell)), "", "| | |", "|---|---|"]
    lines += [f"| {word} | {value} |" for word, value in rows]
    lines += ["", f"Quantiles are within {100 * cell.relative_error:.2g} % of the true ones.", ""]
    for figure in figures:
        if figure.startswith(f"{name}/"):
            what = figure.removeprefix(f"{name}/")
            lines += [f"![{what}](figures/{file_name(figure)}.png)", ""]
    return lines
