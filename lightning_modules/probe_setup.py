"""What a linear probe needs beside its parameters: a closed form's solver, a permutation test."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from lightning_modules.closed_form.registry import CLOSED_FORMS
from lightning_modules.closed_form.solver import ClosedFormSolver
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_group import FeatureScaler, ProbeGroup
from lightning_modules.statistics.grid_permutation import (
    GridPermutation,
    PermutationSettings,
    PermutedSamples,
)


def closed_form_solver(
    name: str,
    objective: Objective,
    groups: Sequence[ProbeGroup],
    scalers: Sequence[FeatureScaler],
    *,
    rows: int,
    memory_budget: int,
    trainer: pl.Trainer,
) -> ClosedFormSolver:
    """Plans the passes of a closed form.

    Args:
        name: of the closed form.
        objective: gives the validation loss.
        groups: the probes.
        scalers: of the sources.
        rows: how many training rows there are.
        memory_budget: bytes that sums may take.
        trainer: says how many epochs and processes there are.

    Raises:
        ValueError: if the budget, the number of epochs or that of processes does not fit.
    """
    solver = ClosedFormSolver(
        CLOSED_FORMS[name], objective, groups, scalers, rows=rows, memory_budget=memory_budget
    )
    passes, epochs = len(solver.passes), trainer.max_epochs
    if epochs is not None and 0 <= epochs < passes:
        raise ValueError(
            f"`max_epochs` must allow {passes} passes, but got {epochs}. Allow more, or give "
            f"more `memory_budget` than {memory_budget} bytes."
        )
    if trainer.world_size > 1:
        raise ValueError(
            f"`devices` must be 1 with objective {name}, but got {trainer.world_size} processes. "
            "Each closed form needs the sums of all rows."
        )
    return solver


def grid_permutation(
    data: Any,
    groups: Sequence[ProbeGroup],
    scalers: Sequence[FeatureScaler],
    objective: Objective,
    settings: PermutationSettings,
) -> GridPermutation | None:
    """The permutation test of what is asked about; None where none is wanted.

    Args:
        data: the data module.
        groups: all probes.
        scalers: of the sources.
        objective: scores the predictions.
        settings: how many permutations, and of what.
    """
    if not settings.permutations:
        return None
    asked = [group for group in groups if group.spec.is_main]
    return GridPermutation(PermutedSamples(data), asked, list(scalers), objective, settings)
