"""The tables of a report as HTML."""

import shlex
from collections.abc import Iterable
from typing import Any

from lightning_modules.figures.control_bars import control_word
from lightning_modules.figures.metric_dots import metric_word
from lightning_modules.metrics.estimate import Estimate
from lightning_modules.report.elements import code, escape, rows_table, sortable, table_cell
from lightning_modules.report.run_record import RunRecord
from lightning_modules.results import CellResult, ProbeResults
from lightning_modules.verdict import verdict


def _has(results: ProbeResults, word: str) -> bool:
    return any(getattr(cell, word) is not None for cell in results.cells)


def _columns(results: ProbeResults) -> list[str]:
    cells = [cell.cell for cell in results.cells]
    columns = ["field"] if len({cell.field for cell in cells}) > 1 else []
    columns += ["layer"] if any(cell.layer is not None for cell in cells) else []
    columns += ["flow time"] if any(cell.flow_time is not None for cell in cells) else []
    columns += [results.score_name, "95 % from", "to", "gain from", "to"]
    columns += ["balanced"] if _has(results, "balanced_accuracy") else []
    columns += ["selectivity", "from", "to"] if _has(results, "selectivity") else []
    columns += ["p", "p corrected"] if _has(results, "p_value") else []
    columns += ["penalty"] if _has(results, "penalty") else []
    columns += ["shorter code"] if _has(results, "code") else []
    return [*columns, "verdict", "loss", "best epoch"]


def _row(results: ProbeResults, cell: CellResult, columns: list[str]) -> str:
    place = cell.cell
    cells = [table_cell(place.field, text=True)] if "field" in columns else []
    cells += [table_cell(place.layer)] if "layer" in columns else []
    cells += [table_cell(place.flow_time, ".2f")] if "flow time" in columns else []
    cells += [table_cell(cell.score, ".3f"), *(table_cell(end, ".3f") for end in cell.interval)]
    cells += [table_cell(end, "+.3f") for end in cell.gain]
    if "balanced" in columns:
        cells.append(table_cell(cell.balanced_accuracy, ".3f"))
    if "selectivity" in columns:
        found = cell.selectivity
        ends = (found.value, found.low, found.high) if found else (None, None, None)
        cells += [table_cell(end, "+.3f") for end in ends]
    if "p" in columns:
        cells += [table_cell(p, ".4f") for p in (cell.p_value, cell.p_corrected)]
    if "penalty" in columns:
        cells.append(table_cell(cell.penalty, "g"))
    if "shorter code" in columns:
        cells.append(table_cell(cell.code.compression if cell.code else None, ".2f"))
    cells.append(table_cell(verdict(results, cell).word, text=True))
    cells += [table_cell(cell.loss, ".3f"), table_cell(cell.best_epoch)]
    chosen = cell is results.cells[results.chosen]
    return f"<tr{' class=chosen' if chosen else ''}>{''.join(cells)}</tr>"


def cell_table(results: ProbeResults) -> str:
    """One line a cell, sortable; the chosen one stands out."""
    columns = _columns(results)
    return sortable(columns, (_row(results, cell, columns) for cell in results.cells))


def estimates_table(rows: Iterable[tuple[str, Estimate]]) -> str:
    """Numbers with intervals, and what they are without latents."""
    lines = [
        {"name": n, "value": e.value, "low": e.low, "high": e.high, "chance": e.chance}
        for n, e in rows
    ]
    head = {"name": "", "value": "value", "low": "95 % from", "high": "to", "chance": "chance"}
    return rows_table(lines, head)


def chosen_tables(results: ProbeResults) -> str:
    """The controls and metrics of the chosen cell."""
    chosen = results.cells[results.chosen]
    parts = []
    if chosen.controls:
        parts.append("<h3>The chosen cell's controls</h3>")
        parts.append(
            estimates_table(
                pair
                for name, control in chosen.controls.items()
                for pair in (
                    (control_word(name), control.score),
                    (f"the probe minus {control_word(name)}", control.margin),
                )
            )
        )
    if chosen.metrics:
        parts.append("<h3>The chosen cell's metrics</h3>")
        metrics = chosen.metrics.items()
        parts.append(estimates_table((metric_word(name), found) for name, found in metrics))
    return "\n".join(parts)


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
