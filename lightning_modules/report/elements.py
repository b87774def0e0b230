"""The parts that pages are made of."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import SETTINGS


def resource(name: str) -> str:
    """A file that lies beside this one."""
    return files("lightning_modules.report").joinpath(name).read_text(encoding="utf-8")


def escape(value: object) -> str:
    """The value as HTML text."""
    return html.escape(str(value))


def svg_address(figure: Figure) -> str:
    """The figure as an address that holds its own content; equal figures give equal text."""
    buffer = io.BytesIO()
    with rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure_element(name: str, figure: Figure, caption: str) -> str:
    """A figure with its caption."""
    return (
        f'<figure><img alt="{escape(name)}" src="{svg_address(figure)}" '
        f'style="width:{min(figure.get_figwidth() * 96, 1000):.0f}px">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


LONGEST_NUMBER = 14
"""Characters of a card's value; what is longer is words, and set smaller."""


def card(label: str, value: str, note: str) -> str:
    """A number, or a few words, that stand out."""
    css = "value words" if len(value) > LONGEST_NUMBER else "value"
    return (
        f'<div><div class="label">{escape(label)}</div><div class="{css}">{escape(value)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
    )


def bullets(lines: Sequence[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def warning_box(lines: Sequence[str]) -> str:
    """What must be read first; nothing where there is nothing."""
    if not lines:
        return ""
    content = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<section class="warning">{content}</section>'


def table_cell(value: float | int | str | None, form: str = "", *, text: bool = False) -> str:
    """One cell of a sortable table; what is unknown is empty."""
    shown = "" if value is None or value != value else format(value, form)
    css = ' class="text"' if text else ""
    return f'<td{css} data-value="{escape("" if value is None else value)}">{escape(shown)}</td>'


def sortable(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table that sorts itself when a heading is clicked.

    Args:
        head: the headings.
        rows: HTML of each row.
    """
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(rows)
    return (
        f'<table class="sortable"><thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def rows_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, form: str = ".3f"
) -> str:
    """A sortable table of rows.

    Args:
        rows: by column.
        columns: heading by column, in order.
        form: of fractional numbers.
    """
    kept = {c: heading for c, heading in columns.items() if any(r[c] is not None for r in rows)}

    def cell(value: Any) -> str:
        if isinstance(value, str):
            return table_cell(value, text=True)
        return table_cell(value, form if isinstance(value, float) else "")

    body = (f"<tr>{''.join(cell(row[column]) for column in kept)}</tr>" for row in rows)
    return sortable(kept.values(), body)


def facts_table(facts: Iterable[tuple[str, str]]) -> str:
    """Two columns: what, and what it is (HTML)."""
    rows = "\n".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in facts)
    return f'<table class="facts"><tbody>\n{rows}\n</tbody></table>'


def code(value: object) -> str:
    """The value as code."""
    return f"<code>{escape(value)}</code>"
