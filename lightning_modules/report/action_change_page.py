"""What a comparison of actions leaves behind: a page, a table, a figure.

OUT/report.html       one page that needs no other file
OUT/changes.csv       a row for all dimensions together, and one for each
OUT/change.png        and .svg
OUT/summary.json      everything, and what the page says in words
"""

import csv
import dataclasses
import json
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.erasure.action_change import ALL, ActionChange, DimensionChange
from lightning_modules.figures.action_change import CAPTION, dimension_word, draw_change
from lightning_modules.figures.style import save_figure
from lightning_modules.metrics.estimate import Estimate
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

FEW_EPISODES = 6
"""Below this many, intervals from drawing episodes are too narrow."""
LIMITS = (
    "Whether the robot succeeds more or less often: the demonstrator drove, so that the policy saw "
    "the same states with and without the change. Let the policy drive to see that.",
    "Whether the policy uses the concept for what it means: a direction that the actions need for "
    "another reason may be erased with it.",
    "What other random directions would do: the intervals draw episodes, not directions. Give more "
    "files of random directions (vla-lens erase --seed) to see how far they differ.",
    "What is not linear: an erased concept can be read by other means, by the policy too.",
)
COLUMNS = {
    "dimension": "action", "spread": "standard deviation", "erased": "erased",
    "erased_low": "95 % from", "erased_high": "to", "random": "random", "random_low": "95 % from",
    "random_high": "to", "difference": "difference", "difference_low": "95 % from",
    "difference_high": "to",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a comparison comes from."""

    plain: str
    erased: str
    random: tuple[str, ...]
    command: str


def summary_words(change: ActionChange) -> list[str]:
    """What the numbers say."""
    lines = [
        f"{change.samples} policy calls of {change.episodes} episodes, each at the same state and "
        "from the same noise with and without a change."
    ]
    if change.rows[0].dimension == ALL:
        lines.append(f"All dimensions together: {row_words(change.rows[0])}.")
    told = [row for row in change.rows if row.dimension != ALL and verdict_of(row)]
    return lines + [f"Action {row.dimension}: {row_words(row)}." for row in told]


def row_words(row: DimensionChange) -> str:
    """One row in words."""
    unit = " standard deviations" if row.dimension == ALL else ""
    return (
        f"erasing the concept moved actions by {short(row.erased)}{unit}, random directions "
        f"changed by as much by {short(row.random)}; difference {short(row.difference)}: "
        f"{VERDICTS[verdict_of(row)]}"
    )


VERDICTS = {1: "more than random directions", -1: "less than random directions",
            0: "no difference can be told"}  # fmt: skip


def verdict_of(row: DimensionChange) -> int:
    """1: more than random directions, -1: less, 0: not known."""
    if not row.difference.known:
        return 0
    return int(row.difference.low > 0) - int(row.difference.high < 0)


def short(estimate: Estimate) -> str:
    """The number with its interval, three digits each."""
    ends = f" [{estimate.low:.3g}, {estimate.high:.3g}]" if estimate.known else ""
    return f"{estimate.value:.3g}{ends}"


def warnings_of(change: ActionChange) -> list[str]:
    """What must be read first."""
    lines = []
    if change.episodes < FEW_EPISODES:
        lines.append(f"Only {change.episodes} episodes: the intervals are too narrow, or missing.")
    if change.left_out:
        lines.append(
            f"{change.left_out} samples of the plain data set are not in all of the others and "
            "were left out."
        )
    if change.constant:
        listed = ", ".join(map(str, change.constant))
        lines.append(f"Never varying in the plain actions, so not part of the sum: {listed}.")
    return lines


def table_rows(change: ActionChange) -> list[dict[str, Any]]:
    """A flat row for each dimension."""
    rows = []
    for row in change.rows:
        flat: dict[str, Any] = {"dimension": dimension_word(row), "spread": row.spread}
        for word in ("erased", "random", "difference"):
            entry = getattr(row, word).to_json()
            flat |= {word: entry["value"], f"{word}_low": entry["low"]}
            flat |= {f"{word}_high": entry["high"]}
        rows.append(flat)
    return rows


def write_change_report(out: Path, change: ActionChange, sources: Sources) -> Path:
    """Writes everything; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    rows, figure = table_rows(change), draw_change(change)
    with (out / "changes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)
    save_figure(figure, out / "change.png")
    summary = {**dataclasses.asdict(sources), **change.to_json(), "words": summary_words(change),
               "warnings": warnings_of(change)}  # fmt: skip
    content = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False)
    (out / "summary.json").write_text(content + "\n", encoding="utf-8")
    page = out / "report.html"
    page.write_text(render(change, sources, rows, figure), encoding="utf-8")
    return page


def render(
    change: ActionChange, sources: Sources, rows: list[dict[str, Any]], figure: Figure
) -> str:
    """The page as text."""
    first = change.rows[0]
    cards = [
        card("concept erased", f"{first.erased.value:.3g}", short(first.erased)),
        card("random directions", f"{first.random.value:.3g}", short(first.random)),
        card("difference", f"{first.difference.value:.3g}", VERDICTS[verdict_of(first)]),
        card("episodes", str(change.episodes), f"{change.samples} policy calls"),
    ]
    facts = [
        ("Command", code(sources.command)), ("Plain", code(sources.plain)),
        ("Erased", code(sources.erased)), ("Random", "<br>".join(map(code, sources.random))),
    ]  # fmt: skip
    return Template(resource("page.html")).substitute(
        title="Actions with a concept erased",
        subtitle=escape(f"{change.samples} policy calls, {dimension_word(first)}; by VLA Lens"),
        css=resource("page.css"),
        js=resource("sort.js"),
        warnings=warning_box(warnings_of(change)),
        cards="\n".join(cards),
        summary=bullets(summary_words(change)),
        figures=figure_element("change", figure, CAPTION),
        table_heading="Every action dimension",
        table_note=escape(
            "Root mean square changes; all together in standard deviations of the plain actions, "
            "the others in the unit of the action. Click a heading to sort."
        ),
        table=rows_table(rows, COLUMNS, form=".3g"),
        limits=bullets(LIMITS),
        provenance=facts_table(facts),
    )
