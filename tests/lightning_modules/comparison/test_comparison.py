"""What a comparison finds where something is planted, and where nothing is."""

import numpy as np
import pytest

from lightning_modules.comparison.comparison import compare
from lightning_modules.comparison.distributions import StepFunctions
from lightning_modules.comparison.exchange import plan_exchange
from lightning_modules.comparison.joint import Mmd
from lightning_modules.comparison.moments import Moments
from lightning_modules.comparison.registry import MEASURES
from tests.comparison_sides import side_of
from tests.context_data import correlated, independent


def compared(a, b, *, measures, paired=False, permutations=99, seed=0, tasks=1):
    first, second = side_of("A", a, tasks=tasks), side_of("B", b, tasks=tasks)
    exchange = plan_exchange(first, second, paired=paired, permutations=permutations, seed=seed)
    vectors = np.concatenate([first.vectors, second.vectors])
    return compare(vectors, exchange, measures=measures, seed=seed)


def test_half_a_std_in_5_of_2048_dimensions_is_found_in_500_vectors():
    a, b = independent(500, 2048, seed=0, shift=0.5, moved=5), independent(500, 2048, seed=1)
    found = compared(a, b, measures=[Moments], permutations=59)
    assert found.differs
    assert sorted(found.moved()) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found.dimensions["shift"][:5], 0.5, atol=0.25)
    assert found.detectable.shift < 0.45


def test_frames_of_few_episodes_find_no_difference_and_say_what_they_could_see():
    a, b = correlated(10, 50, 64, seed=0), correlated(10, 50, 64, seed=1)
    found = compared(a, b, measures=[Moments])
    assert not found.differs
    assert found.detectable.units_a == 10
    assert found.detectable.design_effect > 20  # 50 frames that share nine tenths
    assert found.detectable.shift > 1
    naive = compared(
        [x[None] for x in np.concatenate(a)], [x[None] for x in np.concatenate(b)],
        measures=[Moments], permutations=40,
    )  # fmt: skip
    assert naive.differs  # what frames as units would have said


def test_what_could_be_seen_is_seen_in_four_of_five_cases():
    seen = 0
    shift = compared(independent(40, 6, seed=90), independent(40, 6, seed=91), measures=[Moments])
    for draw in range(40):
        a = independent(40, 6, seed=2 * draw, shift=shift.detectable.shift, moved=1)
        b = independent(40, 6, seed=2 * draw + 1)
        seen += 0 in compared(a, b, measures=[Moments], permutations=59, seed=draw).moved()
    assert 24 <= seen <= 39  # 80 % of 40, within three standard deviations


def rejected(draws, measures, *, width, episodes, frames, permutations, tasks=1):
    count = 0
    for draw in range(draws):
        a = correlated(episodes, frames, width, seed=3 * draw)
        b = correlated(episodes + 2, frames, width, seed=3 * draw + 1)
        found = compared(a, b, measures=measures, permutations=permutations, seed=draw, tasks=tasks)
        count += found.differs
    return count


def test_two_halves_of_one_population_rarely_differ():
    measures = [Moments, StepFunctions, Mmd]
    count = rejected(60, measures, width=5, episodes=9, frames=3, permutations=59)
    assert count <= 8  # 3 are due; more than 8 come once in 300 times


@pytest.mark.slow
def test_two_halves_of_one_population_differ_at_the_nominal_rate():
    count = rejected(200, MEASURES, width=10, episodes=12, frames=3, permutations=99, tasks=2)
    assert 3 <= count <= 18  # 10 are due; 95 % of all cases lie between 4 and 17


def test_pairs_see_a_change_that_is_small_beside_the_scatter():
    a = correlated(20, 5, 8, seed=0)
    moved = np.zeros(8, np.float32)
    moved[3] = 0.1
    noise = correlated(20, 5, 8, seed=1)
    b = [x - moved + np.float32(0.05) * y for x, y in zip(a, noise, strict=True)]
    assert compared(a, b, measures=[Moments], paired=True).moved() == [3]
    assert compared(a, b, measures=[Moments]).moved() == []
    paired = compared(a, b, measures=[Moments, Mmd], paired=True, permutations=40)
    assert {x.name for x in paired.alike} == {"cka", "correlation", "cosine"}
    assert min(x.value for x in paired.alike) > 0.98
    assert paired.dimensions["correlation"].min() > 0.98


def test_equal_seeds_give_equal_numbers_and_all_measures_have_nulls_and_intervals():
    a, b = correlated(14, 3, 10, seed=0), correlated(13, 3, 10, seed=1, shift=2, moved=10)
    one, two = (compared(a, b, measures=MEASURES, permutations=40) for _ in range(2))
    assert one.to_json() == two.to_json()
    assert not one.refused
    assert {title for measure in MEASURES for title in measure.titles} == {
        m.name for m in one.measures
    }
    for m in one.measures:
        assert m.null_low <= m.null_mean <= m.null_high, m.name
        assert m.low < m.value < m.high, m.name
        assert 1 / 41 <= m.p <= m.p_corrected <= 1, m.name
    clear = {m.name for m in one.measures if m.p_corrected < 0.05}
    assert {"mean_shift", "wasserstein", "ks", "js", "sliced", "frechet", "mmd", "probe"} <= clear
