"""How many passes over the data a closed form takes, so that its sums fit into memory."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

NUMBER = 8
"""Bytes of a float64."""

Form = Literal["rows", "sums"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """The cells that one pass over the training rows serves."""

    cells: tuple[int, ...]
    """Places in the grid."""
    forms: tuple[Form, ...]
    """Of each cell: whether the rows are kept as they are stored, or XᵀX is summed."""
    bytes: int
    """What is held while the data are read: sums or rows, then solutions."""


def bytes_of_sums(width: int, columns: int) -> int:
    """XᵀX and XᵀY of one cell."""
    return NUMBER * width * (width + columns + 2)


def bytes_of_rows(width: int, rows: int, itemsize: int) -> int:
    """The rows of one cell as they are stored."""
    return width * rows * itemsize


def bytes_of_solutions(width: int, columns: int, strengths: int) -> int:
    """The solutions of one cell, of which one is chosen when all rows are read."""
    return NUMBER * strengths * width * columns


def bytes_of_solving(width: int, rows: int, form: Form) -> int:
    """What solving one cell takes besides: rows as float64, a matrix and its factors."""
    side = min(width, rows) if form == "rows" else width
    kept = 2 * width * rows if form == "rows" else 0
    return NUMBER * (kept + 3 * side**2)


def plan_passes(
    widths: Sequence[int],
    *,
    rows: int,
    columns: int,
    itemsize: int,
    strengths: int,
    memory_budget: int,
) -> tuple[Pass, ...]:
    """Divides the cells among as few passes as the budget allows, in order.

    Args:
        widths: of each cell.
        rows: training rows.
        columns: of the targets.
        itemsize: bytes of a stored feature.
        strengths: how many are tried.
        memory_budget: bytes that the sums may take.

    Raises:
        ValueError: if a single cell does not fit.
    """
    passes: list[Pass] = []
    for cell, width in enumerate(widths):
        kept, summed = bytes_of_rows(width, rows, itemsize), bytes_of_sums(width, columns)
        form: Form = "rows" if kept <= summed else "sums"
        own = min(kept, summed) + bytes_of_solutions(width, columns, strengths)
        work = bytes_of_solving(width, rows, form)
        if own + work > memory_budget:
            raise ValueError(
                f"`memory_budget` must hold at least one cell, {own + work} bytes for width "
                f"{width} and {rows} training rows, but got {memory_budget}. Give more, or choose "
                "an objective that is trained by gradients."
            )
        last = passes[-1] if passes else None
        if last is not None and last.bytes + own + work <= memory_budget:
            passes[-1] = Pass(
                cells=(*last.cells, cell), forms=(*last.forms, form), bytes=last.bytes + own
            )
        else:
            passes.append(Pass(cells=(cell,), forms=(form,), bytes=own))
    return tuple(passes)


def describe_passes(passes: Sequence[Pass]) -> str:
    """A sentence for people, said before the first pass starts."""
    cells, most = sum(len(p.cells) for p in passes), max(p.bytes for p in passes)
    kept = sum(p.forms.count("rows") for p in passes)
    ways = {"the training rows of": kept, "the products of the features of": cells - kept}
    held = " and ".join(f"{way} {count} cells" for way, count in ways.items() if count)
    word = "pass" if len(passes) == 1 else "passes"
    return (
        f"{len(passes)} {word} over the training data for {cells} cells: {held}, "
        f"at most {most / 2**20:,.0f} MiB at a time"
    )
