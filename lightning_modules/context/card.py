"""What a card says of a data set's vectors, before it is written or drawn.

Letters: n kept rows, d dimensions.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from datamodules.cell import Cell
from lightning_modules.context.cell_statistics import CellStatistics, NotFinite
from lightning_modules.context.dimension_table import (
    SHARES,
    DimensionTable,
    Spectrum,
    dimension_table,
    facts_of,
    spectrum_of,
)
from lightning_modules.context.output_norm import OutputNorm, facts_of_norm, words_of_norm
from lightning_modules.context.stability import StabilityCurve, design_effect, stability_curves

Kept = tuple[Float32[np.ndarray, "n d"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]
"""Vectors, their episodes, their row numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellCard:
    """One cell."""

    cell: Cell
    table: DimensionTable
    lengths: DimensionTable
    """Of one dimension: the vectors' lengths."""
    length_bins: tuple[Float64[np.ndarray, " k"], Int64[np.ndarray, " k"]]
    """Middles and counts of the bins of the lengths that hold any."""
    spectrum: Spectrum | None
    relative_error: float
    """Of the quantiles."""
    not_finite: NotFinite
    not_finite_keys: list[str]
    stability: list[StabilityCurve]
    design_effect: float
    kept: Kept
    norm: OutputNorm | None = None
    """What the vectors came out of, where the data set knows."""

    @classmethod
    def of(
        cls,
        cell: Cell,
        sums: CellStatistics,
        kept: Kept,
        bad: list[str],
        seed: int,
        norm: OutputNorm | None = None,
    ) -> "CellCard":
        """Reads everything off the sums and the kept vectors."""
        covariance = sums.vectors.covariance
        counts = sums.lengths.counts[0]
        held = np.flatnonzero(counts)
        several = len(kept[0]) > 1
        return cls(
            cell=cell,
            table=dimension_table(sums.vectors),
            lengths=dimension_table(sums.lengths),
            length_bins=(sums.lengths.bins.middles[held], counts[held]),
            spectrum=None if covariance is None else spectrum_of(covariance),
            relative_error=sums.vectors.bins.relative_error,
            not_finite=sums.not_finite,
            not_finite_keys=bad,
            stability=stability_curves(*kept[:2], seed=seed) if several else [],
            design_effect=design_effect(*kept[:2]) if several else math.nan,
            kept=kept,
            norm=norm,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers of the whole cell, in plain types."""
        lengths = self.lengths
        effect = self.design_effect
        return {
            **facts_of(self.table, self.spectrum),
            "length_mean": float(lengths.mean[0]),
            "length_std": float(lengths.std[0]),
            "length_quantiles": dict(
                zip(map(str, SHARES), lengths.quantiles[:, 0].tolist(), strict=True)
            ),
            "quantile_relative_error": self.relative_error,
            "not_finite_samples": self.not_finite.samples,
            "not_finite_numbers": self.not_finite.numbers,
            "not_finite_first": self.not_finite_keys,
            "design_effect": None if math.isnan(effect) else effect,
            "effective_samples": None if math.isnan(effect) else self.table.count / max(effect, 1),
            "stability": [dataclasses.asdict(curve) for curve in self.stability],
            **(facts_of_norm(self.norm, self.table) if self.norm is not None else {}),
        }

    def columns(self) -> dict[str, np.ndarray]:
        """What there is of each dimension, by name."""
        norm = self.norm
        affine = {} if norm is None else {"norm_weight": norm.weight, "norm_bias": norm.bias}
        return {**self.table.columns(), **affine}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """All cells, and where the vectors come from."""

    cells: tuple[CellCard, ...]
    data: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "data": self.data,
            "versions": self.versions,
            "cells": {cell.cell.name: cell.facts for cell in self.cells},
        }


def words_of(card: CellCard) -> list[str]:
    """What the numbers mean, a sentence each."""
    facts, table = card.facts, card.table
    lines = []
    if facts["not_finite_samples"]:
        lines.append(
            f"{facts['not_finite_samples']} vectors hold NaN or infinity "
            f"({facts['not_finite_numbers']} numbers) and are left out: "
            f"{', '.join(facts['not_finite_first'])}."
        )
    dead = f"{facts['constant']} of {facts['width']} dimensions never vary, " + (
        f"{facts['nearly_constant']} vary less than 1/20 of the median std"
    )
    lines.append(f"{dead}; {facts['massive_dimensions']} are massive in some vector.")
    if card.norm is not None:
        lines.append(words_of_norm(facts))
    if card.spectrum is not None:
        lines.append(
            f"The vectors vary in {facts['effective_rank']:.1f} directions (effective rank); "
            f"{_holds(facts['directions_for_90_percent'])} 90 % of the variance, the first "
            f"{100 * facts['first_share']:.0f} %."
        )
        if table.count <= facts["width"]:
            lines.append(
                f"{table.count} vectors span at most {table.count - 1} of {facts['width']} "
                "directions: the effective rank of more vectors would be higher."
            )
    effect = facts["design_effect"]
    if effect is not None and effect > 1.5:
        lines.append(
            f"Frames of one episode resemble each other: {table.count} of them are worth about "
            f"{facts['effective_samples']:.0f} independent ones (design effect {effect:.1f})."
        )
    return [*lines, *_enough(card)]


def _holds(directions: int) -> str:
    return "one holds" if directions == 1 else f"{directions} hold"


def _enough(card: CellCard) -> list[str]:
    found = {curve.name: curve for curve in card.stability}
    if "means" not in found:
        return ["There are too few episodes to say how far another sample would differ."]
    curve, n = found["means"], len(found["means"].rows) - 1
    return [
        f"Two samples of {curve.rows[n]:.0f} vectors from {curve.units[n]} episodes differ in "
        f"their means by {curve.middle[n]:.3f} std a dimension (95 % of draws: "
        f"{curve.low[n]:.3f} to {curve.high[n]:.3f}); this falls with the root of the number "
        "of episodes."
    ]
