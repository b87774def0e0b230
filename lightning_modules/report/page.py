"""Puts a report together: one HTML file that needs nothing else."""

from pathlib import Path
from string import Template

from lightning_modules.figures.curves import FILE, draw_curves, read_curves
from lightning_modules.figures.probe_figures import caption_of, probe_figures
from lightning_modules.figures.style import trivial_word
from lightning_modules.report.elements import (
    bullets,
    card,
    escape,
    facts_table,
    figure_element,
    resource,
    warning_box,
)
from lightning_modules.report.findings import limits, plain_words, warnings_of
from lightning_modules.report.run_record import RunRecord, read_run
from lightning_modules.report.tables import cell_table, chosen_tables, provenance_facts
from lightning_modules.results import ProbeResults
from lightning_modules.verdict import verdict

SPLIT_WORDS = {"test": "test split", "val": "validation split"}


def _figures(run: RunRecord) -> str:
    figures = dict(probe_figures(run.results))
    curves = read_curves(run.folder / FILE)
    if len({row["epoch"] for row in curves}) > 1:
        chosen = run.results.cells[run.results.chosen]
        figures["curves"] = draw_curves(curves, chosen.cell.name, chosen.best_epoch)
    return "\n".join(
        figure_element(name, figure, caption_of(name)) for name, figure in figures.items()
    )


def _fields(results: ProbeResults) -> str:
    fields = list(dict.fromkeys(cell.cell.field for cell in results.cells))
    return fields[0] if len(fields) == 1 else f"{len(fields)} fields"


def _cards(results: ProbeResults) -> str:
    chosen = results.cells[results.chosen]
    low, high = chosen.interval
    interval = "" if low != low else f"95 %: {low:.3f} to {high:.3f}; "
    low, high = results.trivial_interval
    trivial = "" if low != low else f"95 %: {low:.3f} to {high:.3f}; "
    classes = len(results.classes)
    chance = f"1 of {classes} classes, guessed" if classes else "a random direction"
    cards = (
        ("verdict", str(verdict(results)), "for the chosen cell"),
        (f"{results.score_name}, chosen cell", f"{chosen.score:.3f}",
         f"{interval}{chosen.cell.words}"),
        (f"{trivial_word(results.score_name)} alone", f"{results.trivial:.3f}",
         f"{trivial}never looks at the latents"),
        ("chance", f"{results.chance:.3f}", chance),
        ("episodes", str(results.episodes), f"{results.samples} samples, {results.split} split"),
    )  # fmt: skip
    return "\n".join(card(*words) for words in cards)


def _provenance(run: RunRecord) -> str:
    config = f"<details><summary>config.yaml</summary><pre>{escape(run.config)}</pre></details>"
    return facts_table(provenance_facts(run)) + (config if run.config else "")


def render(run: RunRecord) -> str:
    """The page as text."""
    results = run.results
    word = trivial_word(results.score_name)
    balanced = " Balanced: accuracy with equal weight on every class." if results.classes else ""
    note = (
        f"Scores on the {SPLIT_WORDS[results.split]}. For comparison: {word} "
        f"{results.trivial:.3f}, chance {results.chance:.3f}. Gain: the 95 % interval of the "
        f"score minus the {word}'s.{balanced} Blue: the chosen cell. Click a heading to sort."
    )
    return Template(resource("page.html")).substitute(
        title=escape(f"Reading {results.target} from {_fields(results)}"),
        subtitle=escape(
            f"{len(results.cells)} linear probes, {SPLIT_WORDS[results.split]}, "
            f"run {run.folder.resolve().name}; made by VLA Lens"
        ),
        css=resource("page.css"),
        js=resource("sort.js"),
        warnings=warning_box(warnings_of(run)),
        cards=_cards(results),
        summary=bullets(plain_words(results)),
        figures=_figures(run),
        table_heading="Every cell",
        table_note=escape(note),
        table=cell_table(results) + "\n" + chosen_tables(results),
        limits=bullets(limits(run)),
        provenance=_provenance(run),
    )


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of a run; returns where.

    Args:
        folder: the run folder.
        out: the file; by default report.html in the run folder.

    Raises:
        FileNotFoundError: if the folder holds no results.
        ValueError: if they cannot be read.
    """
    path = out or folder / "report.html"
    text = render(read_run(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
