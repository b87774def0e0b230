"""The lines that a sweep prints when it ends."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def short_option(option: str) -> str:
    """The last word of a dotted option, which says enough in a table's head."""
    return option.rpartition(".")[2]


def option_names(options: Sequence[str]) -> dict[str, str]:
    """A short name for each option; the whole one where two would be alike."""
    short = [short_option(option) for option in options]
    return {
        option: name if short.count(name) == 1 else option
        for option, name in zip(options, short, strict=True)
    }


def value_text(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def place_text(line: Mapping[str, Any]) -> str:
    """The chosen cell."""
    parts = [".".join(line[word] for word in ("expert", "site", "region", "pool"))]
    parts += [] if line["layer"] is None else [f"layer {line['layer']}"]
    parts += [] if line["flow_time"] is None else [f"t {line['flow_time']:.2f}"]
    return ", ".join(parts)


def score_text(line: Mapping[str, Any]) -> str:
    """The score with its interval."""
    ends = "" if line["low"] is None else f" [{line['low']:.3f}, {line['high']:.3f}]"
    return f"{line['metric']} {line['value']:.3f}{ends}"


def summary_lines(lines: Sequence[Mapping[str, Any]], *, limit: int) -> Iterator[str]:
    """A table of the runs' chosen cells as text.

    Args:
        lines: of `run_lines`, with the settings under `settings`.
        limit: runs to show.
    """
    if not lines:
        return
    names = option_names(list(lines[0]["settings"]))
    rows = [[*names.values(), "score", "trivial", "best control", "verdict", "chosen cell"]]
    for line in lines[:limit]:
        control = (
            "-" if line["control"] is None else f"{line['control']} {line['control_value']:.3f}"
        )
        rows.append(
            [*(value_text(line["settings"][option]) for option in names), score_text(line),
             f"{line['trivial']:.3f}", control, line["verdict"], place_text(line)]
        )  # fmt: skip
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(
            f"{text:<{width}}" for text, width in zip(row, widths, strict=True)
        ).rstrip()
    if len(lines) > limit:
        yield f"... and {len(lines) - limit} more"
