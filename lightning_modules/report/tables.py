"""The tables of a report as HTML."""

import shlex
from collections.abc import Iterable
from typing import Any

from lightning_modules.report.elements import code, escape, sortable, table_cell
from lightning_modules.report.run_record import RunRecord
from lightning_modules.results import CellResult, ProbeResults


def _columns(results: ProbeResults) -> list[str]:
    first = results.cells[0]
    columns = [] if first.cell.layer is None else ["layer"]
    columns += [] if first.cell.flow_time is None else ["flow time"]
    columns += [results.score_name, "95 % from", "to", "gain from", "to"]
    columns += [] if first.balanced_accuracy is None else ["balanced"]
    return [*columns, "loss", "best epoch"]


def _row(cell: CellResult, chosen: bool) -> str:
    cells = [] if cell.cell.layer is None else [table_cell(cell.cell.layer)]
    cells += [] if cell.cell.flow_time is None else [table_cell(cell.cell.flow_time, ".2f")]
    cells += [table_cell(cell.score, ".3f"), *(table_cell(value, ".3f") for value in cell.interval)]
    cells += [table_cell(value, "+.3f") for value in cell.gain]
    if cell.balanced_accuracy is not None:
        cells.append(table_cell(cell.balanced_accuracy, ".3f"))
    cells += [table_cell(cell.loss, ".3f"), table_cell(cell.best_epoch)]
    return f"<tr{' class=chosen' if chosen else ''}>{''.join(cells)}</tr>"


def cell_table(results: ProbeResults) -> str:
    """One line a cell, sortable; the chosen one stands out."""
    rows = (_row(cell, i == results.chosen) for i, cell in enumerate(results.cells))
    return sortable(_columns(results), rows)


def _named(entry: dict[str, Any], words: Iterable[str]) -> str:
    found = [f"{word} {code(entry[word])}" for word in words if entry.get(word) is not None]
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
        ("Commands", "<br>".join(code(command) for command in commands)),
        ("Data set", code(data.get("path", "not recorded"))),
        ("Fingerprint", f"{code(data.get('fingerprint'))} (how the data were made)"),
        ("Content", f"{code(data.get('content'))} (digest of the shards' manifests)"),
        ("Policy", _named(data.get("model", {}), ("preset", "weights", "params_digest", "dtype"))),
        ("Environment", _named(data.get("environment", {}), ("name", "suite"))),
        ("Field", f"{code(data.get('field'))}, {escape(data.get('dtype'))}, "
                  f"{escape(data.get('width'))} wide"),
        ("Splits", _splits(data)),
        ("Versions", escape(", ".join(f"{k} {v}" for k, v in run.versions.items()))),
        ("Machine", escape("; ".join(machines))),
    ]  # fmt: skip
