"""How well success can be foretold from time and the robot's own state, and with language besides.

Letters: e episodes, s steps, p features, n samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lightning_modules.language.success_tests import FEWEST, areas
from lightning_modules.metrics.auroc import BINS, pair_counts
from lightning_modules.metrics.unit_groups import deal_units, draw_weights

STRENGTH = 0.1
"""Added to the diagonal of the features' correlation matrix."""


def held_out_scores(
    features: Float64[np.ndarray, "n p"],
    success: Float64[np.ndarray, " n"],
    fold: Int64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """What a linear predictor says of samples of a fold that it has not seen.

    Without its constant: the share of successes in the other folds is high where that of this fold
    is low, and would pull the scores of nothing below chance.
    """
    scores = np.zeros(len(features))
    for number in np.unique(fold):
        rest, here = fold != number, fold == number
        mean, scale = features[rest].mean(0), features[rest].std(0)
        scale = np.where(scale > 1e-9 * np.maximum(np.abs(mean), 1e-12), scale, np.inf)
        x, y = (features[rest] - mean) / scale, success[rest] - success[rest].mean()
        gram = x.T @ x / len(x) + STRENGTH * np.eye(x.shape[1])
        scores[here] = (features[here] - mean) / scale @ np.linalg.solve(gram, x.T @ y / len(x))
    return scores


def area_over_episodes(
    scores: Float64[np.ndarray, " n"],
    success: Float64[np.ndarray, " n"],
    episode: Int64[np.ndarray, " n"],
    *,
    draws: int,
    seed: int,
) -> tuple[float, float, float]:
    """The area under the ROC curve over samples, its interval by drawing whole episodes."""
    order = np.unique(scores, return_inverse=True)[1]
    bins = order * BINS // (int(order.max()) + 1) if order.max() >= BINS else order
    group = deal_units(np.arange(int(episode.max()) + 1))[episode]
    sides = np.zeros((2, int(group.max()) + 1, BINS), np.int64)
    np.add.at(sides, (success.astype(np.int64), group, bins), 1)
    pairs = pair_counts(sides[1:], sides[:1])[0]
    bad, good = sides.sum(-1)

    def area(weights: Float64[np.ndarray, "r g"]) -> Float64[np.ndarray, " r"]:
        all_pairs = (weights @ good) * (weights @ bad)
        ordered = np.einsum("rg,rg->r", weights @ pairs, weights)
        return np.where(all_pairs > 0, ordered / np.maximum(all_pairs, 1), np.nan)

    drawn = area(draw_weights(good + bad, draws=draws, seed=seed))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(area(np.ones((1, len(good))))[0]), float(low), float(high)


def predictor_rows(
    features: Mapping[str, Float64[np.ndarray, "e s _p"]],
    there: Bool[np.ndarray, "e s"],
    success: Float64[np.ndarray, " e"],
    fold: Int64[np.ndarray, " e"],
    steps: Int64[np.ndarray, " s"],
    *,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row a predictor over all samples, and one at each step.

    Over all samples time counts: who fails runs longer. At one step it cannot.
    """
    judged = np.isfinite(success)
    rows = []
    for name, values in features.items():
        episode, step = np.nonzero(there & judged[:, None])
        scores = held_out_scores(values[episode, step], success[episode], fold[episode])
        area, low, high = area_over_episodes(
            scores, success[episode], episode, draws=draws, seed=seed
        )
        known = success[np.unique(episode)]
        rows.append(_row(name, None, known, area, low, high))
        if name != "time":
            rows += _rows_by_step(name, values, there & judged[:, None], success, fold, steps)
    return rows


def _rows_by_step(
    name: str,
    values: Float64[np.ndarray, "e s p"],
    there: Bool[np.ndarray, "e s"],
    success: Float64[np.ndarray, " e"],
    fold: Int64[np.ndarray, " e"],
    steps: Int64[np.ndarray, " s"],
) -> list[dict[str, Any]]:
    rows = []
    for place, timestep in enumerate(steps):
        here = there[:, place]
        if min((success[here] == 1).sum(), (success[here] == 0).sum()) < FEWEST:
            continue
        scores = held_out_scores(values[here, place], success[here], fold[here])
        area, low, high = areas(scores[:, None], success[here])[:, 0].tolist()
        rows.append(_row(name, int(timestep), success[here], area, low, high))
    return rows


def _row(
    name: str,
    step: int | None,
    success: Float64[np.ndarray, " e"],
    area: float,
    low: float,
    high: float,
) -> dict[str, Any]:
    return {
        "predictor": name, "step": step, "episodes": len(success),
        "failures": int((success == 0).sum()), "auroc": area, "low": low, "high": high,
    }  # fmt: skip
