"""What a language report leaves behind.

OUT/report.html      one page that needs no other file
OUT/tables/*.csv     trajectories, separability, fading, success, predictors, separation
OUT/figures/*.png    and .svg
OUT/summary.json     facts, settings, what the page says in words, the three small tables
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.figures.language_figures import language_figures
from lightning_modules.figures.style import save_figure
from lightning_modules.language.analysis import LanguageResults
from lightning_modules.report.language_page import render_language
from lightning_modules.report.language_words import plain_words, warnings_of

IN_SUMMARY: tuple[str, ...] = ("fading", "predictors", "separation")


def known(value: Any) -> Any:
    """None in place of NaN, which JSON has not."""
    return None if isinstance(value, float) and math.isnan(value) else value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file; what is unknown is empty. Without rows no file is written."""
    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: known(value) for name, value in row.items()} for row in rows)


def write_language_report(out: Path, results: LanguageResults, command: str) -> Path:
    """Writes everything; returns the page."""
    facts, tables = results.facts, results.tables
    figures = dict(language_figures(tables))
    text = render_language(facts, tables, results.notes, figures, command)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_rows(out / "tables" / f"{name}.csv", rows)
    for name, figure in figures.items():
        save_figure(figure, out / "figures" / f"{name}.png")
    small = {
        name: [{key: known(x) for key, x in row.items()} for row in tables[name]]
        for name in IN_SUMMARY
    }
    summary = {
        "command": command, **facts, "notes": results.notes,
        "warnings": warnings_of(facts, results.notes), "words": plain_words(facts, tables),
        **small,
    }  # fmt: skip
    content = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False)
    (out / "summary.json").write_text(content + "\n", encoding="utf-8")
    page = out / "report.html"
    page.write_text(text, encoding="utf-8")
    return page
