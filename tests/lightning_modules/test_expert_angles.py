"""Principal angles between experts: the directions, their interval, and chance."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from lightning_modules.language.sample_directions import (
    DIRECTIONS,
    HANDS,
    SampleDirections,
    left_out_in_turn,
    mean_angle,
)
from lightning_modules.language.separation import cell_angles

EPISODES, STEPS = 24, 4
TRUTH = 60.0
"""Degrees between each direction of the one and its partner of the other."""


def two_experts(seed: int, episodes: int = EPISODES) -> tuple[np.ndarray, np.ndarray]:
    """Latents of two experts, whose five strong directions stand at an angle to each other."""
    random = np.random.default_rng(seed)

    def strong() -> np.ndarray:
        own = random.normal(size=(episodes, 1, 5)) + random.normal(size=(episodes, STEPS, 5))
        return own * [9, 8, 7, 6, 5]

    def written(values: np.ndarray, width: int) -> np.ndarray:
        turn = np.linalg.qr(random.normal(size=(width, width)))[0][:5]
        return (values @ turn + 0.05 * random.normal(size=(episodes, STEPS, width)))[:, :, None]

    one = strong()
    two = one * np.cos(np.radians(TRUTH)) + strong() * np.sin(np.radians(TRUTH))
    clock = np.arange(STEPS)[None, :, None] * 100.0  # both follow it, which is no agreement
    return written(one + clock, 12), written(two + clock, 40)


def test_directions_without_some_samples_are_those_of_a_fresh_look():
    values = two_experts(0)[1].reshape(EPISODES * STEPS, -1)
    row, step = np.divmod(np.arange(len(values)), STEPS)
    every = SampleDirections(values, step)
    turns = left_out_in_turn(row, seed=0)
    assert len(turns) == HANDS
    assert (np.sum([~kept for kept in turns], axis=0) == 1).all()
    for kept in turns[:3]:
        assert len(set(row[kept]) & set(row[~kept])) == 0
        found = every.directions(kept)
        fresh = SampleDirections(values[kept], step[kept]).directions()
        np.testing.assert_allclose(found.T @ found, np.eye(DIRECTIONS), atol=1e-8)
        assert np.degrees(subspace_angles(found, fresh)).max() < 1e-4


def test_the_mean_angle_is_that_of_scipy_and_unknown_without_directions():
    random = np.random.default_rng(0)
    one, two = (np.linalg.qr(random.normal(size=(30, p)))[0] for p in (5, 3))
    expected = np.degrees(subspace_angles(one, two)).mean()
    assert float(mean_angle(one.T @ two)) == pytest.approx(expected)
    assert np.isnan(mean_angle(one[:, :0].T @ two))


def test_intervals_of_angles_cover_the_truth_and_narrow_with_more_episodes():
    covered, widths = 0, {EPISODES: [], 4 * EPISODES: []}
    for seed in range(40):
        for episodes, found in widths.items():
            one, two = two_experts(seed, episodes)
            ((angles,),) = cell_angles([one], two, np.ones((episodes, STEPS), bool), seed=0)
            assert angles.low < angles.mean < angles.high < angles.chance_low
            found.append(angles.high - angles.low)
            covered += angles.low < TRUTH < angles.high
    few, many = (np.mean(found) for found in widths.values())
    assert many < 0.7 * few
    assert covered >= 68  # of 80; of 95 % less than that has a chance of 1 in 1000


def test_fewer_than_six_episodes_give_no_interval():
    one, two = two_experts(0, 5)
    ((angles,),) = cell_angles([one], two, np.ones((5, STEPS), bool), seed=0)
    assert np.isfinite(angles.mean)
    assert np.isnan([angles.low, angles.high]).all()
