"""The controls by name, and the groups of probes that each one adds to a grid."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from datamodules.feature_source import MAIN, SourceSpec
from lightning_modules.probe_group import GroupSpec

Sources = Sequence[SourceSpec]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """What decides which groups a control adds."""

    sources: Sources
    objective: str
    """By name; only what gives probabilities of classes can be sent as a code."""
    blocks: int
    """Blocks of training units that an online code sends; 0 with fewer than two units."""


Controls = Literal["all", "none"] | list[str]
MOST_PROJECTED = 64
"""Dimensions that are left after a random projection, at most."""


def groups_on(sources: Sources, *, source_kind: str, kind: str) -> list[GroupSpec]:
    """One group on each source of a kind."""
    return [
        GroupSpec(kind=kind, source=place, cells=source.cells, width=source.width)
        for place, source in enumerate(sources)
        if source.kind == source_kind
    ]


def main_groups(sources: Sources) -> list[GroupSpec]:
    """What is asked about."""
    return groups_on(sources, source_kind=MAIN, kind=MAIN)


def shuffled(grid: Grid) -> list[GroupSpec]:
    """The same cells on the control task, where episodes have exchanged their targets."""
    return [
        GroupSpec(
            kind="shuffled", source=group.source, cells=group.cells, width=group.width,
            exchanged=True,
        )
        for group in main_groups(grid.sources)
    ]  # fmt: skip


def random_projection(grid: Grid) -> list[GroupSpec]:
    """The same cells through a fixed random projection to few dimensions."""
    return [
        GroupSpec(
            kind="random_projection", source=group.source, cells=group.cells,
            width=MOST_PROJECTED, projected_from=group.width,
        )
        for group in main_groups(grid.sources)
        if group.width > MOST_PROJECTED
    ]  # fmt: skip


def mdl(grid: Grid) -> list[GroupSpec]:
    """The same cells trained on growing prefixes of the training units: an online code."""
    if grid.objective != "cross_entropy":
        return []
    return [
        dataclasses.replace(group, kind="mdl", prefix=prefix)
        for prefix in range(1, grid.blocks)
        for group in main_groups(grid.sources)
    ]


def _reads(kind: str) -> Callable[[Grid], list[GroupSpec]]:
    return lambda grid: groups_on(grid.sources, source_kind=kind, kind=kind)


CONTROLS: dict[str, Callable[[Grid], list[GroupSpec]]] = {
    "shuffled": shuffled,
    "random_projection": random_projection,
    "untrained": _reads("untrained"),
    "proprioception": _reads("proprioception"),
    "time": _reads("time"),
    "mdl": mdl,
}
WHY_ABSENT: dict[str, str] = {
    "random_projection": f"no field is wider than {MOST_PROJECTED}",
    "untrained": "`--data.control_data` names no data set of an untrained policy",
    "proprioception": "not every sample has a robot state",
    "mdl": "an online code needs classes, cross-entropy and two units",
}
"""What is said of a control that the data cannot give."""


def control_names(controls: Controls) -> tuple[str, ...]:
    """The names that `controls` means.

    Raises:
        ValueError: if one is no control.
    """
    if isinstance(controls, str):
        controls = {"all": list(CONTROLS), "none": []}.get(controls, [controls])
    unknown = [name for name in controls if name not in CONTROLS]
    if unknown:
        raise ValueError(
            f"`controls` must be all, none or a list out of {', '.join(CONTROLS)}, but got "
            f"{unknown[0]!r}."
        )
    return tuple(controls)


def plan_groups(grid: Grid, names: Sequence[str]) -> tuple[tuple[GroupSpec, ...], dict[str, str]]:
    """The groups of a grid with these controls, and which controls are left out and why."""
    groups, left_out = main_groups(grid.sources), {}
    for name in names:
        found = CONTROLS[name](grid)
        groups += found
        if not found:
            left_out[name] = WHY_ABSENT[name]
    return tuple(groups), left_out
