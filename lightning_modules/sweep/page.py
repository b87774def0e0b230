"""The table and the page of a sweep."""

import io
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import pyarrow.parquet as pq
from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SETTINGS,
    shorten_name,
    styled_axes,
)
from lightning_modules.report.elements import (
    bullets,
    card,
    code,
    escape,
    facts_table,
    figure_element,
    resource,
    rows_table,
    warning_box,
)
from lightning_modules.sweep.folder import SweepFolder, write_whole
from lightning_modules.sweep.plan import SweepRun
from lightning_modules.sweep.rows import over_seeds, run_lines, setting_columns, with_settings
from lightning_modules.sweep.summary import option_names, place_text, value_text

MOST_DRAWN = 40
"""Runs that the figure shows."""
LIMITS = (
    "Many settings were tried: the best of many runs looks better than it is. Decide beforehand "
    "which run answers the question, or test it again on new data.",
    "Each interval is for one run. p values are corrected for the cells of their run, not for the "
    "number of runs.",
    "Runs with another split or another seed of the data have other test samples: compare them "
    "with their own trivial predictor and controls.",
    "That a probe can read something does not mean that the policy uses it. That takes an "
    "intervention.",
)
CAPTION = (
    "The chosen cell of each run, with its 95 % interval; the best of its controls, and the "
    "trivial predictor."
)
COLUMNS = {
    "metric": "score of", "value": "score", "low": "95 % from",
    "high": "to", "trivial": "trivial", "control": "best control", "control_value": "its score",
    "selectivity": "selectivity", "p_value": "p", "p_corrected": "p corrected",
    "verdict": "verdict", "place": "chosen cell", "samples": "samples",
    "units": "units", "unit": "unit",
}  # fmt: skip


def run_name(line: Mapping[str, Any]) -> str:
    """The settings of a run in one line."""
    return ", ".join(value_text(value) for value in line["settings"].values()) or line["run"]


def draw_runs(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws one row a run."""
    figure, axes = styled_axes(8.2, 1.3 + 0.32 * len(lines))
    with rc_context(SETTINGS):
        for place, line in enumerate(lines):
            named = place == 0
            if line["low"] is not None:
                axes.plot([line["low"], line["high"]], [place, place], color=BLUE, lw=2.4)
            axes.plot(line["value"], place, "o", color=BLUE, label="score" if named else None)
            axes.plot(line["trivial"], place, "|", color=GREY, ms=13, mew=2,
                      label="trivial predictor" if named else None)  # fmt: skip
            if line["control_value"] is not None:
                axes.plot(line["control_value"], place, "x", color=ORANGE,
                          label="best control" if named else None)  # fmt: skip
        axes.set_yticks(range(len(lines)), [shorten_name(run_name(line)) for line in lines])
        axes.set_xlabel(" or ".join(dict.fromkeys(line["metric"] for line in lines)))
        axes.set_ylim(len(lines) - 0.4, -0.6)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def plain_words(lines: Sequence[Mapping[str, Any]], runs: int, failed: int) -> list[str]:
    """What the sweep says."""
    words = f"{len(lines)} of {runs} runs are done" + (f", {failed} failed." if failed else ".")
    verdicts = [line["verdict"] for line in lines]
    counts = [f"{verdict} in {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts)]
    said = [words, f"Verdicts on the chosen cells: {'; '.join(counts)}."]
    if any(line["leaky"] for line in lines):
        said.append("Runs split by sample are leaky: their scores say nothing about new episodes.")
    return said


def _table(lines: Sequence[Mapping[str, Any]], options: Sequence[str]) -> str:
    rows = [
        {**line, **{o: value_text(line["settings"][o]) for o in options}, "place": place_text(line)}
        for line in lines
    ]
    return rows_table(rows, {**option_names(options), **COLUMNS})


def _seeds(lines: Sequence[Mapping[str, Any]], options: Sequence[str]) -> str:
    rows = over_seeds(lines, options)
    if not rows:
        return ""
    others = [option for option in options if option in rows[0]]
    rows = [{**row, **{o: value_text(row[o]) for o in others}} for row in rows]
    columns = {
        **option_names(others), "metric": "score of", "seeds": "seeds", "mean": "mean",
        "smallest": "smallest", "largest": "largest", "decodable": "decodable in",
    }  # fmt: skip
    return "<h3>Over seeds</h3>" + rows_table(rows, columns)


def _cards(lines: Sequence[Mapping[str, Any]], runs: int, failed: int, rows: int) -> str:
    decodable = sum(line["verdict"].startswith("decodable") for line in lines)
    cards = (
        ("runs", f"{len(lines)} of {runs}", f"{failed} failed"),
        ("decodable", f"{decodable} of {len(lines)}", "by the verdict on the chosen cell"),
        ("rows", str(rows), "in results.parquet: a row a run, cell, metric and control"),
    )
    return "\n".join(card(*words) for words in cards)


def _provenance(folder: SweepFolder) -> str:
    record = folder.record()
    assert record is not None
    sessions = record["sessions"]
    versions = sessions[-1]["versions"]
    facts = [
        ("Commands", "<br>".join(dict.fromkeys(code(entry["command"]) for entry in sessions))),
        ("Machine", escape("; ".join(dict.fromkeys(entry["machine"] for entry in sessions)))),
        ("Versions", escape(", ".join(f"{name} {version}" for name, version in versions.items()))),
    ]
    for path, known in record["data"].items():
        digests = f"fingerprint {code(known['fingerprint'])}, content {code(known['content'])}"
        facts.append(("Data set", f"{code(path)}, {digests}"))
    text = (folder.path / "sweep.yaml").read_text(encoding="utf-8")
    shown = f"<details><summary>sweep.yaml</summary><pre>{escape(text)}</pre></details>"
    return facts_table(facts) + shown


def render_sweep(
    folder: SweepFolder, lines: Sequence[Mapping[str, Any]], *, runs: int, rows: int
) -> str:
    """The page as text."""
    options = list(lines[0]["settings"])
    failures = folder.failures()
    drawn = lines[:MOST_DRAWN]
    note = "Click a heading to sort. The folder runs/ holds each run; `vla-lens report` shows one."
    if len(drawn) < len(lines):
        note += f" The figure shows the first {len(drawn)} of {len(lines)} runs."
    return Template(resource("page.html")).substitute(
        title="A sweep of probes",
        subtitle=escape(f"{runs} runs over {', '.join(options)}; made by VLA Lens"),
        css=resource("page.css"),
        js=resource("sort.js"),
        warnings=warning_box([f"Failed: {name}: {why}" for name, why in failures.items()]),
        cards=_cards(lines, runs, len(failures), rows),
        summary=bullets(plain_words(lines, runs, len(failures))),
        figures=figure_element("runs", draw_runs(drawn), CAPTION),
        table_heading="Every run",
        table_note=escape(note),
        table=_table(lines, options) + _seeds(lines, options),
        limits=bullets(LIMITS),
        provenance=_provenance(folder),
    )


def write_sweep(folder: SweepFolder, runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """Writes the table and the page of the runs that are done; returns a line a run."""
    table = folder.table(runs)
    if table is None:
        return []
    table = with_settings(table, runs)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_whole(folder.path / "results.parquet", buffer.getvalue())
    settings = {run.name: run.settings for run in runs}
    lines = [
        {**line, "settings": settings[line["run"]]}
        for line in run_lines(table, list(setting_columns(runs)))
    ]
    page = render_sweep(folder, lines, runs=len(runs), rows=table.num_rows)
    write_whole(folder.path / "report.html", page.encode())
    return lines
