"""Turns what was measured of one expert at one layer into rows of the report's tables.

Letters: e episodes, s steps, c cells, t places (a cell at a step each).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from lightning_modules.language.bands import mean_with_band
from lightning_modules.language.episode_steps import EpisodeSteps
from lightning_modules.language.hsic import cka
from lightning_modules.language.layer_measures import LayerMeasures
from lightning_modules.language.separability import variance_ratio
from lightning_modules.language.separation import Angles, Disagreement

Row = dict[str, Any]
Place = Mapping[str, Any]
"""Expert, layer and flow time of a cell."""


def flat(values: Float64[np.ndarray, "e s c"]) -> Float64[np.ndarray, "e t"]:
    """Steps and cells side by side."""
    return values.reshape(len(values), -1)


def place_rows(
    table: Mapping[str, Float64[np.ndarray, "s c"]],
    steps: EpisodeSteps,
    places: list[Place],
    **words: Any,
) -> Iterator[Row]:
    """One row a step and cell where the first column has a number."""
    first = next(iter(table.values()))
    for step, timestep in enumerate(steps.steps.tolist()):
        for cell, place in enumerate(places):
            if np.isfinite(first[step, cell]):
                numbers = {name: float(x[step, cell]) for name, x in table.items()}
                yield {**place, "step": timestep, **words, **numbers}


def trajectory_rows(
    found: LayerMeasures, steps: EpisodeSteps, places: list[Place], *, draws: int, seed: int
) -> Iterator[Row]:
    """Means with bands over all episodes, those that succeeded, and those that failed."""
    groups = {
        "all": np.ones(len(steps.success), bool),
        "success": steps.success == 1,
        "failure": steps.success == 0,
    }
    for group, chosen in groups.items():
        if not chosen.any():
            continue
        for quantity, values in found.values.items():
            band = mean_with_band(flat(values[chosen]), draws=draws, seed=seed)
            shaped = band.reshape(4, *values.shape[1:])
            columns: dict[str, np.ndarray] = dict(
                zip(("value", "low", "high", "episodes"), shaped, strict=True)
            )
            yield from place_rows(columns, steps, places, quantity=quantity, group=group)


def separability_rows(
    found: LayerMeasures, steps: EpisodeSteps, places: list[Place]
) -> Iterator[Row]:
    """The ratio of variances and the CKA with the embeddings, with jackknife intervals."""
    statistics = {
        "variance_ratio": found.separability.statistic(variance_ratio),
        "cka_with_embeddings": found.alignment.statistic(lambda q: cka(q[0], q[1], q[2])),
    }
    for name, (value, low, high) in statistics.items():
        columns = {"value": value, "low": low, "high": high}
        yield from place_rows(columns, steps, places, quantity=name)


def separation_rows(
    places: list[Place],
    pair: str,
    cka_and_ends: tuple[np.ndarray, np.ndarray, np.ndarray],
    angles: list[Angles],
    differ: Disagreement,
) -> Iterator[Row]:
    """How far another expert is from each cell of the action expert."""
    value, low, high = cka_and_ends
    for cell, place in enumerate(places):
        angle = angles[cell]
        numbers = {
            "cka": value[cell], "cka_low": low[cell], "cka_high": high[cell],
            "angle": angle.mean, "angle_low": angle.low, "angle_high": angle.high,
            "angle_chance_low": angle.chance_low,
            "angle_chance_high": angle.chance_high, "angle_samples": angle.samples,
            "disagreement": differ.share[cell], "disagreement_low": differ.low[cell],
            "disagreement_high": differ.high[cell],
            "disagreement_independent": differ.independent[cell],
        }  # fmt: skip
        spot = {"layer": place["layer"], "flow_time": place["flow_time"]}
        yield {"pair": pair, **spot, **{name: float(x) for name, x in numbers.items()}}


def changes_since_first(
    values: Float64[np.ndarray, "e s c"], steps: EpisodeSteps
) -> Float64[np.ndarray, "e s c"]:
    """The value minus that at the episode's first step; NaN at the first step itself."""
    first = steps.there.argmax(1)
    episodes = np.arange(len(values))
    changes = values - values[episodes, first][:, None]
    changes[episodes, first] = np.nan
    return changes
