"""The page of a language report, from its tables and facts alone."""

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.language_figures import CAPTIONS, CONTROL, Tables, best_place
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
from lightning_modules.report.language_words import (
    LIMITS,
    Facts,
    mean_loss,
    plain_words,
    warnings_of,
)

MOST_ROWS = 300
"""Rows that a table of the page shows; the files hold all."""
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "fading": (
        "Change of the language loss since the first step",
        {
            "expert": "expert", "layer": "layer", "flow_time": "flow time", "step": "step",
            "change": "change", "low": "95 % from", "high": "to", "episodes": "episodes",
            "p_adjusted": "p, corrected",
        },
    ),
    "success": (
        "What goes with success",
        {
            "quantity": "quantity", "expert": "expert", "layer": "layer", "flow_time": "flow time",
            "step": "step", "r": "r", "r_low": "95 % from", "r_high": "to", "auroc": "AUROC",
            "auroc_low": "95 % from", "auroc_high": "to", "failures": "failures",
            "p_adjusted": "p, corrected",
        },
    ),
    "predictors": (
        "Foretelling success",
        {
            "predictor": "from", "step": "step (empty: all)", "auroc": "AUROC", "low": "95 % from",
            "high": "to", "episodes": "episodes", "failures": "failures",
        },
    ),
    "separation": (
        "Experts compared",
        {
            "pair": "pair", "layer": "layer", "flow_time": "flow time", "cka": "CKA",
            "cka_low": "95 % from", "cka_high": "to", "angle": "angle",
            "angle_low": "95 % from", "angle_high": "to", "angle_chance_low": "by chance from",
            "angle_chance_high": "to", "disagreement": "disagree",
            "disagreement_low": "95 % from", "disagreement_high": "to",
            "disagreement_independent": "if independent",
        },
    ),
}  # fmt: skip
"""Heading and columns of the page's tables."""


COUNTS = ("episodes", "failures")
"""Columns of whole numbers."""


def shown_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a table that fit the page, the clearest first."""
    if "p_adjusted" in (rows[0] if rows else {}):
        size = "change" if name == "fading" else "r"
        known = [row for row in rows if row["p_adjusted"] == row["p_adjusted"]]
        rows = sorted(known, key=lambda row: (row["p_adjusted"], -abs(row[size])))
    return [
        {**row, **{word: int(row[word]) for word in COUNTS if row.get(word) is not None}}
        for row in rows[:MOST_ROWS]
    ]


def _tables(tables: Tables) -> str:
    parts = []
    for name, (heading, columns) in TABLES.items():
        rows = tables[name]
        shown = shown_rows(name, rows)
        if not shown:
            continue
        cut = f" ({len(shown)} of {len(rows)}; all in tables/{name}.csv)"
        parts.append(f"<h3>{escape(heading + (cut if len(shown) < len(rows) else ''))}</h3>")
        parts.append(rows_table(shown, columns))
    return "\n".join(parts)


def _cards(facts: Facts, tables: Tables) -> str:
    rows = tables["trajectories"]
    cards = []
    for expert in facts["experts"]:
        layer, time = best_place(rows, expert)
        loss = mean_loss(rows, expert=expert, layer=layer, flow_time=time)
        at = f"lowest, layer {layer}" + ("" if time is None else f", flow time {time:.2f}")
        cards.append(card(f"language loss, {expert}", f"{loss:.2f}", at))
    control = mean_loss(rows, expert=CONTROL)
    cards.append(card(f"language loss, {CONTROL}", f"{control:.2f}", "the control; 1: nothing"))
    failed = f"{facts['failures']} failed, {facts['samples']} samples"
    cards.append(card("episodes", str(facts["episodes"]), failed))
    return "\n".join(cards)


def _provenance(facts: Facts, command: str) -> str:
    experts = ", ".join(f"{name}: {code(field)}" for name, field in facts["experts"].items())
    options = ", ".join(f"{name} {code(value)}" for name, value in facts["options"].items())
    listed = "<br>".join(escape(text) for text in facts["instructions"])
    return facts_table(
        [
            ("Command", code(command)),
            ("Data set", code(facts["path"])),
            ("Fingerprint", code(facts["fingerprint"])),
            ("Policy", ", ".join(
                f"{word} {code(facts['model'][word])}"
                for word in ("preset", "weights", "params_digest")
                if word in facts["model"]
            )),
            ("Fields", experts),
            ("Settings", options),
            ("Instructions", listed),
        ]
    )  # fmt: skip


def render_language(
    facts: Facts,
    tables: Tables,
    notes: Sequence[str],
    figures: Mapping[str, Figure],
    command: str,
) -> str:
    """The page as text."""
    drawn = "\n".join(figure_element(n, figure, CAPTIONS[n]) for n, figure in figures.items())
    return Template(resource("page.html")).substitute(
        title="Language over time",
        subtitle=escape(
            f"{', '.join(facts['experts'])}: {facts['episodes']} episodes, "
            f"{len(facts['steps'])} rollout steps; made by VLA Lens"
        ),
        css=resource("page.css"),
        js=resource("sort.js"),
        warnings=warning_box(warnings_of(facts, notes)),
        cards=_cards(facts, tables),
        summary=bullets(plain_words(facts, tables)),
        figures=drawn,
        table_heading="Tables",
        table_note=escape(
            "The clearest rows first; the files in tables/ hold all. p values are corrected for "
            "all rows of their table. Click a heading to sort."
        ),
        table=_tables(tables),
        limits=bullets(LIMITS),
        provenance=_provenance(facts, command),
    )
