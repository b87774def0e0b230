"""Rounds of training: as many cells at once as the memory allows, the others after them.

A number of a cell's linear map takes memory five times: its weight and its best weight always,
its gradient and AdamW's two moments while it trains.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lightning_modules.probe_group import GroupSpec

BYTES = 4
"""Of a float32 number."""
RESTING, TRAINING = 2, 3
"""Copies of a cell's numbers: always, and besides while it trains."""


def cell_bytes(group: GroupSpec, size: int) -> int:
    """One copy of the numbers of one cell.

    Args:
        group: the cell's group.
        size: classes or dimensions of the target.
    """
    return BYTES * (group.width + 1) * size


def deal_rounds(
    groups: Sequence[GroupSpec], *, size: int, memory_budget: int
) -> tuple[GroupSpec, ...]:
    """Cuts groups into parts that are trained one after another, in the order of the cells.

    Args:
        groups: whole groups.
        size: classes or dimensions of the target.
        memory_budget: bytes for weights, best weights, gradients and moments.

    Raises:
        ValueError: if not even one cell can be trained beside what rests.
    """
    resting = RESTING * sum(cell_bytes(group, size) * len(group.cells) for group in groups)
    largest = TRAINING * max(cell_bytes(group, size) for group in groups)
    room = memory_budget - resting
    if room < largest:
        raise ValueError(
            f"`memory_budget` must be {resting + largest} bytes at least for these cells and "
            f"controls, but got {memory_budget}. Choose fewer cells or controls, or allow more."
        )
    dealt, number, used = [], 0, 0
    for group in groups:
        one, place = TRAINING * cell_bytes(group, size), 0
        while place < len(group.cells):
            count = min((room - used) // one, len(group.cells) - place)
            if count == 0:
                number, used = number + 1, 0
                continue
            cells = group.cells[place : place + count]
            dealt.append(
                dataclasses.replace(group, cells=cells, first=group.first + place, round=number)
            )
            place, used = place + count, used + one * count
    return tuple(dealt)


def count_rounds(groups: Sequence[GroupSpec]) -> int:
    """How often the data are gone through from the first epoch to the last."""
    return 1 + max(group.round for group in groups)


def check_rounds(rounds: int, processes: int, memory_budget: int) -> None:
    """Refuses what cannot be done.

    Raises:
        ValueError: if several processes would train several rounds.
    """
    if rounds > 1 and processes > 1:
        raise ValueError(
            f"`memory_budget` must let all cells train together on several devices, but got "
            f"{memory_budget}, which takes {rounds} rounds. Allow more, or use one device."
        )


def describe_rounds(groups: Sequence[GroupSpec], memory_budget: int) -> str:
    """What will be done, as a line for people; empty where one round is enough."""
    rounds = count_rounds(groups)
    if rounds == 1:
        return ""
    sizes = [sum(len(g.cells) for g in groups if g.round == number) for number in range(rounds)]
    return (
        f"{sum(sizes)} cells (controls among them) do not fit into {memory_budget / 2**30:.2f} GiB "
        f"together: {rounds} rounds of training, of {', '.join(map(str, sizes))} cells. More "
        "`--model.memory_budget` or fewer `--model.controls` make it fewer.\n"
    )


def replace_parameters(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Lets an optimiser forget its parameters and their state, and take others."""
    optimizer.state.clear()
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)


@dataclasses.dataclass
class RoundClock:
    """Which round is being trained; travels in the checkpoint."""

    number: int = 0
    first_epoch: int = 0
    """The round's first one."""
    epochs: int | None = None
    """How many each round may take; None for as many as its cells need."""

    def to_json(self) -> dict[str, int]:
        """Plain types; how many epochs is for each fit to say."""
        return {"number": self.number, "first_epoch": self.first_epoch}

    def over(self, current_epoch: int, *, active: bool) -> bool:
        """Whether the round has ended.

        Args:
            current_epoch: the epoch that is about to start.
            active: whether any of its cells still trains.
        """
        return not active or current_epoch - self.first_epoch == self.epochs

    def next(self, current_epoch: int) -> None:
        """Starts the next round."""
        self.number, self.first_epoch = self.number + 1, current_epoch
