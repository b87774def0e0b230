"""The two families of tests of a report: does language fade, and does anything go with success?

Letters: e episodes, s steps, c cells, t places (a cell at a step each), r permutations.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from lightning_modules.language.bands import mean_with_band
from lightning_modules.language.episode_steps import FEWEST_EPISODES, EpisodeSteps
from lightning_modules.language.layer_measures import LayerMeasures
from lightning_modules.language.max_statistic import (
    MaxStatistic,
    flipped_t,
    permuted_labels,
    sign_flips,
)
from lightning_modules.language.options import LanguageOptions
from lightning_modules.language.step_tables import Place, Row, changes_since_first, flat, place_rows
from lightning_modules.language.success_tests import areas, correlations, standardised
from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.unit_groups import draw_weights

FEWEST_OUTCOMES = 5
"""Failures, and successes, without which nothing is said about success."""
TESTED: tuple[str, ...] = ("language_loss", "cosine_to_first", "l2_to_first")


class FadingFamily:
    """The change of the language loss since an episode's first step, in every cell at every step.

    Without fading a change is as likely as its opposite, so signs are exchanged episode by episode.
    """

    def __init__(self, steps: EpisodeSteps, options: LanguageOptions) -> None:
        self._steps, self._options = steps, options
        self._flips = sign_flips(
            len(steps.rows), permutations=options.permutations, seed=options.seed
        )
        self._largest = MaxStatistic(options.permutations)
        self.rows: list[Row] = []

    def add(self, found: LayerMeasures, places: list[Place]) -> None:
        """Adds the cells of one expert at one layer."""
        changes = changes_since_first(found.values["language_loss"], self._steps)
        shape = changes.shape[1:]
        observed = flipped_t(flat(changes), np.ones((1, len(changes))), fewest=FEWEST_EPISODES)[0]
        self._largest.add(flipped_t(flat(changes), self._flips, fewest=FEWEST_EPISODES))
        band = mean_with_band(flat(changes), draws=self._options.draws, seed=self._options.seed)
        names = ("statistic", "change", "low", "high", "episodes")
        columns = dict(zip(names, [observed, *band], strict=True))
        columns = {name: values.reshape(shape) for name, values in columns.items()}
        self.rows += place_rows(columns, self._steps, places)

    def finish(self) -> list[Row]:
        """The rows with p values that hold for all of them together."""
        return with_p_values(self.rows, self._largest)


class SuccessFamily:
    """What goes with success, in every cell at every step, labels exchanged within each task."""

    def __init__(self, steps: EpisodeSteps, options: LanguageOptions) -> None:
        self._steps, self._options = steps, options
        self._judged = np.isfinite(steps.success)
        self._success = steps.success[self._judged]
        self.asked = min(steps.successes, steps.failures) >= FEWEST_OUTCOMES
        self._largest = MaxStatistic(options.permutations)
        self.rows: list[Row] = []
        if self.asked:
            self._labels = permuted_labels(
                self._success, steps.task[self._judged], steps.there[self._judged],
                permutations=options.permutations, seed=options.seed,
            )  # fmt: skip
            self._weights = draw_weights(
                np.ones(len(self._success), np.int64), draws=options.draws, seed=options.seed
            )

    def add(self, found: LayerMeasures, places: list[Place]) -> None:
        """Adds the cells of one expert at one layer."""
        if not self.asked:
            return
        for quantity in TESTED:
            values = found.values[quantity][self._judged]
            by_step = [self._columns(values[:, s], labels) for s, labels in enumerate(self._labels)]
            columns = {name: np.stack([each[name] for each in by_step]) for name in by_step[0]}
            self.rows += place_rows(columns, self._steps, places, quantity=quantity)

    def _columns(
        self, values: Float64[np.ndarray, "e c"], permuted_labels: Bool[np.ndarray, "r e"]
    ) -> dict[str, Float64[np.ndarray, " c"]]:
        labels = self._success[None]
        r = correlations(values, labels)[0]
        permuted = correlations(values, permuted_labels.astype(np.float64))
        observed, permuted = standardised(r, permuted)
        self._largest.add(permuted)
        drawn = correlations(values, np.repeat(labels, len(self._weights), 0), self._weights)
        low, high = np.where(np.isfinite(r)[:, None], percentiles(drawn.T), np.nan).T
        area = areas(values, self._success)
        known = np.isfinite(values)
        return {
            "r": r, "r_low": low, "r_high": high, "auroc": area[0], "auroc_low": area[1],
            "auroc_high": area[2], "statistic": observed,
            "episodes": known.sum(0).astype(np.float64),
            "failures": known[self._success == 0].sum(0).astype(np.float64),
        }  # fmt: skip

    def finish(self) -> list[Row]:
        """The rows with p values that hold for all of them together."""
        return with_p_values(self.rows, self._largest)


def with_p_values(rows: list[Row], largest: MaxStatistic) -> list[Row]:
    """The rows with `p_adjusted` in place of the statistic."""
    if not rows:
        return rows
    observed = np.array([row["statistic"] for row in rows], np.float64)
    p_values: list[Any] = largest.p_values(observed).tolist()
    return [
        {name: x for name, x in row.items() if name != "statistic"} | {"p_adjusted": p}
        for row, p in zip(rows, p_values, strict=True)
    ]
