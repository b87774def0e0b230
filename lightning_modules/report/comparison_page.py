"""The page of a comparison, and what it says in words."""

import shlex
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_modules.comparison.comparison import ComparisonResults
from lightning_modules.comparison.side import Side
from lightning_modules.figures.comparison_figures import CAPTIONS, clearest
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

MOST_ROWS = 50
LIMITS: tuple[str, ...] = (
    "An exchange of episodes asks whether A and B could be draws from one population. A difference "
    "may come from anything that differs between them: the model, or the episodes that were taken.",
    "A value by itself says nothing: distances are above 0 without any difference. Compare it with "
    "its null.",
    "No difference found is not no difference: see what a comparison of this size would see.",
    "Intervals leave groups of episodes out; they show how firm a value is, not its bias.",
    "t-SNE and UMAP are pictures, no evidence: p-values come from the measures alone.",
)
MEASURE_COLUMNS: dict[str, str] = {
    "title": "measure", "value": "value", "null_mean": "no difference: mean",
    "p_corrected": "p, corrected", "p": "p", "low": "value: 95 % from", "high": "to",
    "null_low": "no difference: 95 % from", "null_high": "to",
}  # fmt: skip
ALIKE_COLUMNS: dict[str, str] = {
    "title": "of the pairs", "value": "value", "low": "95 % from", "high": "to",
    "null_mean": "unrelated frames: mean", "null_high": "95 % below", "p": "p",
}  # fmt: skip


def plain_words(results: ComparisonResults) -> list[str]:
    """What was found, a sentence each."""
    found, seen = results.detectable, results.moved()
    lines = []
    if results.differs:
        best = min(results.measures, key=lambda m: (m.p_corrected, -abs(m.value - m.null_mean)))
        lines.append(
            f"A and B differ (p = {results.p:.3f}, all measures together); clearest: {best.title}, "
            f"{best.value:.3f} where {best.null_mean:.3f} is no difference."
        )
    else:
        lines.append(
            f"No difference found: the most unusual of all measures has p = {results.p:.3f}, "
            "corrected for all of them."
        )
    if seen:
        named = ", ".join(f"{d} ({results.dimensions['shift'][d]:+.2f} std)" for d in seen[:10])
        lines.append(f"The mean of {len(seen)} dimensions moved: {named}{_more(seen)}.")
    spread = results.moved("p_std")
    if spread:
        named = ", ".join(map(str, spread[:10]))
        lines.append(f"The spread of {len(spread)} dimensions differs: {named}{_more(spread)}.")
    lines.append(
        f"With {found.units_a} and {found.units_b} episodes ({found.rows_a} and {found.rows_b} "
        f"vectors), a shift of one dimension by {found.shift:.2f} std would be found in 80 % of "
        "all cases."
    )
    if found.design_effect > 1.5:
        lines.append(
            "Vectors of one episode resemble each other: they count as if there were "
            f"{found.design_effect:.1f} times fewer."
        )
    return lines + [
        f"{alike.title}: {alike.value:.3f}; unrelated frames would give {alike.null_mean:.3f}."
        for alike in results.alike
    ]


def _more(places: Sequence[int]) -> str:
    return f", and {len(places) - 10} more" if len(places) > 10 else ""


def side_notes(a: Side, b: Side) -> list[str]:
    """What the reader must know of each side."""
    notes = []
    for side in (a, b):
        if side.not_finite.samples:
            notes.append(
                f"{side.not_finite.samples} vectors of {side.name} hold NaN or infinity and are "
                f"left out: {', '.join(side.not_finite_keys)}."
            )
        there = side.facts["samples_there"]
        if there > len(side.keys) + side.not_finite.samples:
            notes.append(f"{len(side.keys)} of {there} vectors of {side.name} are compared.")
    return notes


def dimension_rows(results: ComparisonResults) -> list[dict[str, Any]]:
    """A row a dimension, the clearest first."""
    columns = results.dimensions
    return [
        {"dimension": place, **{name: float(column[place]) for name, column in columns.items()}}
        for place in clearest(results)
    ]


def _measures(results: ComparisonResults) -> list[dict[str, Any]]:
    return [{name: getattr(m, name) for name in MEASURE_COLUMNS} for m in results.measures]


def _alike(results: ComparisonResults) -> list[dict[str, Any]]:
    return [{name: getattr(m, name) for name in ALIKE_COLUMNS} for m in results.alike]


def _tables(results: ComparisonResults) -> str:
    parts = ["<h3>Measures</h3>", rows_table(_measures(results), MEASURE_COLUMNS)]
    if results.alike:
        parts += ["<h3>Pairs</h3>", rows_table(_alike(results), ALIKE_COLUMNS)]
    if results.refused:
        parts.append("<h3>Refused</h3>")
        parts.append(bullets([f"{title}: {why}." for title, why in results.refused.items()]))
    rows = dimension_rows(results)
    kept = ("dimension", "shift", "t", "p_shift", "std_a", "std_b", "p_std", "wasserstein", "ks",
            "kl", "js", "correlation")  # fmt: skip
    heads = {name: name.replace("_", " ") for name in kept if name in rows[0]}
    cut = f"{min(MOST_ROWS, len(rows))} of {len(rows)}; all in dimensions.csv"
    parts.append(f"<h3>Dimensions ({cut})</h3>")
    parts.append(rows_table(rows[:MOST_ROWS], heads))
    return "\n".join(parts)


def _provenance(a: Side, b: Side, results: ComparisonResults, command: str) -> str:
    facts = [("Command", code(command)), ("Exchanges", str(results.permutations))]
    for side in (a, b):
        own = side.facts
        facts.append((side.name, f"{code(own['path'])}, {code(own['cell'])}, {own['dtype']}"))
        facts.append((f"{side.name}: model", code(own["model"])))
        facts.append((f"{side.name}: fingerprint", code(own["fingerprint"])))
        facts.append((f"{side.name}: profile", code(own["profile"])))
    return facts_table(facts)


def _cards(results: ComparisonResults) -> str:
    found = results.detectable
    word = "A and B differ" if results.differs else "no difference found"
    probe = next((m for m in results.measures if m.name == "probe"), None)
    cards = [
        card("verdict", word, f"p = {results.p:.3f}, all measures together"),
        card("dimensions moved", f"{len(results.moved())}", f"of {len(results.dimensions['t'])}"),
        card("would be seen", f"{found.shift:.2f} std", "shift of one dimension, 80 % of cases"),
        card("episodes", f"{found.units_a} and {found.units_b}",
             f"{found.rows_a} and {found.rows_b} vectors"),
    ]  # fmt: skip
    if probe is not None:
        note = f"without any difference {probe.null_low:.2f} to {probe.null_high:.2f}"
        cards.append(card("which model?", f"{probe.value:.2f}", note))
    return "\n".join(cards)


def render_comparison(
    a: Side,
    b: Side,
    results: ComparisonResults,
    notes: Sequence[str],
    figures: Mapping[str, Figure],
    command: str,
) -> str:
    """The page as text."""
    drawn = "\n".join(figure_element(n, figure, CAPTIONS[n]) for n, figure in figures.items())
    return Template(resource("page.html")).substitute(
        title="Two sets of vectors",
        subtitle=escape(
            f"A: {a.facts['path']}, {a.cell.name}; B: {b.facts['path']}, {b.cell.name}; "
            "made by VLA Lens"
        ),
        css=resource("page.css"),
        js=resource("sort.js"),
        warnings=warning_box(notes),
        cards=_cards(results),
        summary=bullets(plain_words(results)),
        figures=drawn,
        table_heading="Tables",
        table_note=escape(
            "Corrected: for all measures together; in the table of dimensions, for all of them. "
            "Click a heading to sort."
        ),
        table=_tables(results),
        limits=bullets(LIMITS),
        provenance=_provenance(a, b, results, command),
    )


def markdown_comparison(
    a: Side, b: Side, results: ComparisonResults, notes: Sequence[str], figures: Sequence[str]
) -> str:
    """The same, shorter, as Markdown."""
    lines = [
        "# Two sets of vectors", "",
        f"A: `{a.facts['path']}`, {a.cell.name}", "", f"B: `{b.facts['path']}`, {b.cell.name}", "",
        *(f"**{note}**\n" for note in notes), *(f"- {line}" for line in plain_words(results)), "",
        "| measure | value | 95 % | no difference: mean | 95 % | p, corrected |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {m.title} | {m.value:.4f} | {m.low:.4f} to {m.high:.4f} | {m.null_mean:.4f} | "
        f"{m.null_low:.4f} to {m.null_high:.4f} | {m.p_corrected:.3f} |"
        for m in results.measures
    ]
    lines += [f"| {title} | refused: {why} | | | | |" for title, why in results.refused.items()]
    if results.alike:
        lines += [
            "",
            "| of the pairs | value | 95 % | unrelated frames | p |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {x.title} | {x.value:.4f} | {x.low:.4f} to {x.high:.4f} | {x.null_mean:.4f} | "
            f"{x.p:.3f} |"
            for x in results.alike
        ]
    for name in figures:
        lines += ["", f"![{name}](figures/{name}.png)", "", CAPTIONS[name]]
    return "\n".join([*lines, "", "## Limits", "", *(f"- {line}" for line in LIMITS), ""])


def spoken_command(args: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return shlex.join(["vla-lens", *args])


def finite_or_none(value: Any) -> Any:
    """None in place of NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite_or_none(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(x) for x in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
