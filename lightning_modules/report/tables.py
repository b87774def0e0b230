"""The tables of a report as HTML."""

import html
import shlex
from collections.abc import Iterable
from typing import Any

from lightning_modules.report.run_record import RunRecord
from lightning_modules.results import CellResult, ProbeResults


def escape(value: object) -> str:
    """The value as HTML text."""
    return html.escape(str(value))


def _td(value: float | int | str | None, form: str = "", *, text: bool = False) -> str:
    shown = "" if value is None or value != value else format(value, form)
    css = ' class="text"' if text else ""
    return f'<td{css} data-value="{escape("" if value is None else value)}">{escape(shown)}</td>'


def _columns(results: ProbeResults) -> list[str]:
    first = results.cells[0]
    columns = [] if first.cell.layer is None else ["layer"]
    columns += [] if first.cell.flow_time is None else ["flow time"]
    columns += [results.score_name, "95 % from", "to", "gain from", "to"]
    columns += [] if first.balanced_accuracy is None else ["balanced"]
    return [*columns, "loss", "best epoch"]


def _row(cell: CellResult, chosen: bool) -> str:
    cells = [] if cell.cell.layer is None else [_td(cell.cell.layer)]
    cells += [] if cell.cell.flow_time is None else [_td(cell.cell.flow_time, ".2f")]
    cells += [_td(cell.score, ".3f"), *(_td(value, ".3f") for value in cell.interval)]
    cells += [_td(value, "+.3f") for value in cell.gain]
    if cell.balanced_accuracy is not None:
        cells.append(_td(cell.balanced_accuracy, ".3f"))
    cells += [_td(cell.loss, ".3f"), _td(cell.best_epoch)]
    return f"<tr{' class=chosen' if chosen else ''}>{''.join(cells)}</tr>"


def cell_table(results: ProbeResults) -> str:
    """One line a cell, sortable; the chosen one stands out."""
    head = "".join(f"<th>{escape(name)}</th>" for name in _columns(results))
    rows = "\n".join(_row(cell, i == results.chosen) for i, cell in enumerate(results.cells))
    return (
        f'<table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>'
    )


def facts_table(facts: Iterable[tuple[str, str]]) -> str:
    """Two columns: what, and what it is (HTML)."""
    rows = "\n".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in facts)
    return f'<table class="facts"><tbody>\n{rows}\n</tbody></table>'


def _code(value: object) -> str:
    return f"<code>{escape(value)}</code>"


def _named(entry: dict[str, Any], words: Iterable[str]) -> str:
    found = [f"{word} {_code(entry[word])}" for word in words if entry.get(word) is not None]
    return ", ".join(found) or "not recorded"


def _splits(data: dict[str, Any]) -> str:
    parts = [
        f"{name}: {part['samples']} samples of {part['episodes']} episodes"
        for name, part in data.get("splits", {}).items()
    ]
    split = data.get("split", {})
    by = f" (by {split.get('by')}, seed {split.get('seed')})" if split else ""
    return escape("; ".join(parts) + by)


def provenance_facts(run: RunRecord) -> list[tuple[str, str]]:
    """Commands, data, model, versions."""
    data = run.data
    commands = [
        entry["command"] for stage, entry in run.provenance.items() if stage != "validate"
    ] or [f"vla-lens report {shlex.quote(str(run.folder))}"]
    machines = list(dict.fromkeys(entry["machine"] for entry in run.provenance.values()))
    return [
        ("Commands", "<br>".join(_code(command) for command in commands)),
        ("Data set", _code(data.get("path", "not recorded"))),
        ("Fingerprint", f"{_code(data.get('fingerprint'))} (how the data were made)"),
        ("Content", f"{_code(data.get('content'))} (digest of the shards' manifests)"),
        ("Policy", _named(data.get("model", {}), ("preset", "weights", "params_digest", "dtype"))),
        ("Environment", _named(data.get("environment", {}), ("name", "suite"))),
        ("Field", f"{_code(data.get('field'))}, {escape(data.get('dtype'))}, "
                  f"{escape(data.get('width'))} wide"),
        ("Splits", _splits(data)),
        ("Versions", escape(", ".join(f"{k} {v}" for k, v in run.versions.items()))),
        ("Machine", escape("; ".join(machines))),
    ]  # fmt: skip
