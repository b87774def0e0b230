"""How much a policy's actions change when a concept is erased, against random directions.

Any change of activations moves actions. So the change that an erasure makes is put beside the one
that as many random directions make when they are changed by as much, at the same states and from
the same noise; intervals draw whole episodes, the same ones for both.

Letters: n samples, h horizon, a action dimensions, e episodes, r draws.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lightning_modules.erasure.joined_actions import JoinedActions
from lightning_modules.metrics.estimate import Estimate, GridEstimates

ALL = "all"
"""The row of all dimensions together, in standard deviations of the plain actions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DimensionChange:
    """Root mean square changes of one action dimension."""

    dimension: str
    """Its number, or `ALL`."""
    spread: float | None
    """Standard deviation of the plain actions, 0 where they never vary; None for `ALL`, which is
    measured in it."""
    erased: Estimate
    random: Estimate
    """Over all files of random directions together."""
    difference: Estimate
    """Erased minus random, on the same draws."""
    random_files: tuple[float, ...]
    """One number for each file of random directions."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        entry = {word: getattr(self, word).to_json() for word in ("erased", "random", "difference")}
        return {
            "dimension": self.dimension, "spread": self.spread, **entry,
            "random_files": list(self.random_files),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionChange:
    """The result: all dimensions together first, then each."""

    rows: tuple[DimensionChange, ...]
    samples: int
    episodes: int
    left_out: int
    constant: tuple[int, ...]
    """Dimensions that never vary in the plain actions: not part of the first row."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            **{word: getattr(self, word) for word in ("samples", "episodes", "left_out")},
            "constant": list(self.constant),
            "rows": [row.to_json() for row in self.rows],
        }


def measure_change(joined: JoinedActions, *, draws: int = 2000, seed: int = 0) -> ActionChange:
    """Compares the changes, each dimension by itself and all together.

    Args:
        joined: chunks at the same states.
        draws: resamples of the episodes.
        seed: of the draws.
    """
    spread = joined.plain.astype(np.float64).std(axis=(0, 1))
    varying = spread > 1e-6 * max(1.0, float(np.abs(joined.plain).max()))
    spread = np.where(varying, spread, 0.0)
    erased = squares_by_episode(joined.plain, joined.erased, joined.episode)
    random = [squares_by_episode(joined.plain, chunk, joined.episode) for chunk in joined.random]
    count = np.bincount(joined.episode)
    weights = episode_draws(len(count), draws, seed)
    scale = np.where(varying, spread, 1.0) ** -2.0 * varying / max(varying.sum(), 1)
    rows = []
    for place in (None, *range(len(spread))):
        pick = scale if place is None else np.eye(len(spread))[place]
        if place is None and not varying.any():
            continue
        rows.append(_row(place, spread, pick, erased, random, count, weights))
    return ActionChange(
        rows=tuple(rows), samples=len(joined.plain), episodes=len(count),
        left_out=joined.left_out, constant=tuple(np.flatnonzero(~varying).tolist()),
    )  # fmt: skip


def squares_by_episode(
    plain: Float32[np.ndarray, "n h a"],
    changed: Float32[np.ndarray, "n h a"],
    episode: Int64[np.ndarray, " n"],
) -> Float64[np.ndarray, "e a"]:
    """Squared change, a mean over the chunk, summed over each episode's samples."""
    square = ((changed.astype(np.float64) - plain) ** 2).mean(axis=1)
    total = np.zeros((int(episode.max()) + 1, plain.shape[2]))
    np.add.at(total, episode, square)
    return total


def episode_draws(episodes: int, draws: int, seed: int) -> Float64[np.ndarray, "r e"]:
    """How often each episode is in each draw; the first row is the data as they are."""
    random = np.random.default_rng(seed)
    drawn = random.multinomial(episodes, np.full(episodes, 1 / episodes), size=draws)
    return np.concatenate([np.ones((1, episodes)), drawn])


def _row(
    place: int | None,
    spread: Float64[np.ndarray, " a"],
    pick: Float64[np.ndarray, " a"],
    erased: Float64[np.ndarray, "e a"],
    random: Sequence[Float64[np.ndarray, "e a"]],
    count: Int64[np.ndarray, " e"],
    weights: Float64[np.ndarray, "r e"],
) -> DimensionChange:
    def root(total: Float64[np.ndarray, "e a"]) -> Float64[np.ndarray, " r"]:
        return np.sqrt(weights @ (total @ pick) / (weights @ count))

    concept, control = root(erased), root(np.mean(random, axis=0))
    return DimensionChange(
        dimension=ALL if place is None else str(place),
        spread=None if place is None else float(spread[place]),
        erased=_estimate(concept, len(count)),
        random=_estimate(control, len(count)),
        difference=_estimate(concept - control, len(count)),
        random_files=tuple(float(root(total)[0]) for total in random),
    )


def _estimate(values: Float64[np.ndarray, " r"], units: int) -> Estimate:
    drawn = values[None, 1:] if units > 1 else np.full((1, 1), np.nan)
    return GridEstimates(value=values[:1], draws=drawn, chance=None, units=units).cell(0)
