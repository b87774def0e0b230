"""Results of several fields, one field at a time."""

import dataclasses

from lightning_modules.results import ProbeResults


def by_field(results: ProbeResults) -> list[ProbeResults]:
    """The results of each field, that of the chosen cell first.

    In the other fields the cell with the lowest validation loss is the chosen one; the confusion
    matrix stays with the first.
    """
    fields = list(dict.fromkeys(cell.cell.field for cell in results.cells))
    first = results.cells[results.chosen].cell.field
    fields.sort(key=lambda field: field != first)
    return [_only(results, field, chosen=field == first) for field in fields]


def _only(results: ProbeResults, field: str, *, chosen: bool) -> ProbeResults:
    cells = tuple(cell for cell in results.cells if cell.cell.field == field)
    losses = [float("inf") if c.validation_loss is None else c.validation_loss for c in cells]
    place = losses.index(min(losses))
    if chosen:
        place = cells.index(results.cells[results.chosen])
    if chosen:
        return dataclasses.replace(results, cells=cells, chosen=place)
    return dataclasses.replace(
        results,
        cells=cells,
        chosen=place,
        confusion=(),
        task_intervals={},
        reliability=(),
        control_reliability=(),
        class_recall={},
        control_recall={},
        similarity=None,
    )
