"""The results of a sweep as one table: one row a run, cell, metric and control."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lightning_modules.metrics.estimate import Estimate
from lightning_modules.results import CellResult, ProbeResults
from lightning_modules.sweep.plan import SEEDS, SweepRun
from lightning_modules.verdict import verdict

TEXTS = (
    "run", "split", "target", "expert", "site", "region", "pool", "metric", "control", "verdict",
    "unit",
)  # fmt: skip
WHOLE = ("layer", "best_epoch", "samples", "episodes", "units")
REAL = (
    "flow_time", "value", "low", "high", "chance", "gain", "gain_low", "gain_high", "margin",
    "margin_low", "margin_high", "p_value", "p_corrected", "penalty", "validation_loss",
)  # fmt: skip
SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXTS]
    + [(name, pa.bool_()) for name in ("chosen", "main", "leaky")]
    + [(name, pa.int64()) for name in WHOLE]
    + [(name, pa.float64()) for name in REAL]
)
"""Columns of a run's table. `main` marks the rows of the score that the probes are judged by; an
empty `control` is the probe itself. `gain` is over the trivial predictor, `margin` the probe's over
the control of that row."""
CELL_COLUMNS = ("expert", "site", "region", "pool", "layer", "flow_time")


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _ends(word: str, found: Estimate) -> dict[str, float | None]:
    prefix = f"{word}_" if word != "value" else ""
    return {
        word: _number(found.value), f"{prefix}low": _number(found.low),
        f"{prefix}high": _number(found.high),
    }  # fmt: skip


def _score_row(results: ProbeResults, cell: CellResult) -> dict[str, Any]:
    low, high = cell.interval
    gain = Estimate(value=cell.score - results.trivial, low=cell.gain[0], high=cell.gain[1])
    return {
        "metric": results.score_name, "control": "", "main": True, "chance": results.chance,
        **_ends("value", Estimate(value=cell.score, low=low, high=high)), **_ends("gain", gain),
        "p_value": cell.p_value, "p_corrected": cell.p_corrected,
    }  # fmt: skip


def _rows_of_cell(results: ProbeResults, cell: CellResult) -> Iterator[dict[str, Any]]:
    yield _score_row(results, cell)
    for name, control in cell.controls.items():
        yield {
            "metric": results.score_name, "control": name, "main": True, "chance": results.chance,
            **_ends("value", control.score), **_ends("gain", control.gain),
            **_ends("margin", control.margin),
        }  # fmt: skip
    for name, found in cell.metrics.items():
        if name == results.score_name:
            continue  # it stands in the first row
        yield {"metric": name, "control": "", "chance": found.chance, **_ends("value", found)}
    alone = {"balanced_accuracy": cell.balanced_accuracy, "loss": cell.loss}
    if cell.code is not None:
        alone |= {"code_bits": cell.code.bits, "code_compression": cell.code.compression}
    for name, value in alone.items():
        if name not in cell.metrics and _number(value) is not None:
            yield {"metric": name, "control": "", "value": value}


def result_table(run: str, results: ProbeResults) -> pa.Table:
    """The rows of one run."""
    rows = []
    for place, cell in enumerate(results.cells):
        same = {
            "run": run, "split": results.split, "target": results.target,
            **{name: cell.cell.to_json().get(name) for name in CELL_COLUMNS},
            "chosen": place == results.chosen, "leaky": results.leaky, "main": False,
            "verdict": str(verdict(results, cell)), "best_epoch": cell.best_epoch,
            "samples": results.samples, "episodes": results.episodes, "unit": results.unit,
            "units": results.units, "penalty": cell.penalty,
            "validation_loss": _number(cell.validation_loss),
        }  # fmt: skip
        rows += [{**same, **row} for row in _rows_of_cell(results, cell)]
    return pa.Table.from_pylist(rows, SCHEMA)


def setting_column(values: Sequence[Any]) -> list[Any]:
    """Values of one option as a column of one type: as they are, or all as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) == 1 and kinds <= {int, float, str, bool}:
        return list(values)
    return [value if value is None or isinstance(value, str) else json.dumps(value)
            for value in values]  # fmt: skip


def setting_columns(runs: Sequence[SweepRun]) -> dict[str, list[Any]]:
    """Each run's settings, by option."""
    options = dict.fromkeys(option for run in runs for option in run.settings)
    return {o: setting_column([run.settings.get(o) for run in runs]) for o in options}


def with_settings(table: pa.Table, runs: Sequence[SweepRun]) -> pa.Table:
    """The rows with the settings of their run as columns behind its name."""
    number = {run.name: place for place, run in enumerate(runs)}
    places = pa.array([number[name] for name in table["run"].to_pylist()], pa.int64())
    for place, (option, values) in enumerate(setting_columns(runs).items()):
        table = table.add_column(1 + place, option, pa.array(values).take(places))
    return table


def run_lines(table: pa.Table, options: Sequence[str]) -> list[dict[str, Any]]:
    """One line a run: its chosen cell's score beside its best control.

    Args:
        table: as `with_settings` made it.
        options: the columns of settings.
    """
    chosen = [row for row in table.filter(table["chosen"]).to_pylist() if row["main"]]
    lines: dict[str, dict[str, Any]] = {}
    for row in chosen:
        if not row["control"]:
            same = ("run", *options, *CELL_COLUMNS, "metric", "value", "low", "high", "verdict",
                    "p_value", "p_corrected", "samples", "units", "unit", "leaky")  # fmt: skip
            lines[row["run"]] = {
                **{name: row[name] for name in same},
                "trivial": row["value"] - row["gain"], "control": None, "control_value": None,
                "selectivity": None,
            }  # fmt: skip
    for row in chosen:
        if row["control"]:
            _add_control(lines[row["run"]], row)
    return list(lines.values())


def _add_control(line: dict[str, Any], row: Mapping[str, Any]) -> None:
    value = row["value"]
    if value is not None and (line["control_value"] is None or value > line["control_value"]):
        line["control"], line["control_value"] = row["control"], value
    if row["control"] == "shuffled":
        line["selectivity"] = row["margin"]


def over_seeds(lines: Sequence[Mapping[str, Any]], options: Sequence[str]) -> list[dict[str, Any]]:
    """Mean and range of the score over runs that differ in their seeds alone."""
    others = [option for option in options if option not in SEEDS]
    if len(others) == len(options):
        return []
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        alike.setdefault(json.dumps([line[o] for o in others]), []).append(line)
    return [
        {
            **{option: group[0][option] for option in others}, "metric": group[0]["metric"],
            "seeds": len(group), "mean": sum(values) / len(values), "smallest": min(values),
            "largest": max(values),
            "decodable": sum(line["verdict"].startswith("decodable") for line in group),
        }
        for group in alike.values()
        if (values := [line["value"] for line in group])
    ]  # fmt: skip
