"""Permutation tests: exact under the null, sharp on planted signal, equal to brute force."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.linear_model import Ridge

from lightning_modules.closed_form.kept_rows import KeptRows
from lightning_modules.closed_form.ridge import ridge_path
from lightning_modules.objectives.cosine import Cosine
from lightning_modules.objectives.cross_entropy import CrossEntropy
from lightning_modules.statistics.exchange import ExchangedScores, plan_exchange
from lightning_modules.statistics.permutation import draw_permutations, p_values
from lightning_modules.statistics.refit import RefitCell, plan_refit, refit_test
from lightning_modules.statistics.unit_labels import UnitLabels, unit_labels

SIMULATED = 200
STRENGTHS = (1e-2, 1.0)


def episodes(random, units=24, length=4, cells=2, width=6):
    """Rows of one unit resemble each other, as frames of an episode do."""
    unit = np.repeat(np.arange(units), length)
    shared = random.normal(size=(units, cells, width))
    return unit, (shared[unit] + 0.3 * random.normal(size=(len(unit), cells, width)))


def refitted(features, unit, labels, *, classes, objective, permutations=99, seed=0):
    """Half of the units are trained on, a quarter validated, a quarter judged."""
    units = int(unit.max()) + 1
    parts = np.array_split(np.arange(units), [units // 2, 3 * units // 4])
    train, val, test = (np.isin(unit, part) for part in parts)
    x = torch.from_numpy(features)
    plan = plan_refit(labels, parts[0], classes=classes, permutations=permutations, seed=seed)
    targets = torch.nn.functional.one_hot(torch.from_numpy(unit[train]), len(parts[0]))
    mean, std = x[train].mean(0), x[train].std(0)
    sums = KeptRows(mean, std, len(parts[0]), rows=int(train.sum()))
    sums.update(x[train], targets.double())
    cells = []
    for place, cell in enumerate(sums.cells()):
        judged = RefitCell(plan, objective, *ridge_path(cell, STRENGTHS))
        normal = (x[:, place] - mean[place]) / std[place]
        judged.validate(normal[val], torch.from_numpy(unit[val]))
        judged.choose()
        judged.update(normal[test], torch.from_numpy(unit[test]))
        cells.append(judged)
    return refit_test(cells), plan, (train, val, test)


def random_vectors(random, units, k=3):
    labels = random.normal(size=(units, k)).astype(np.float32)
    return UnitLabels(code=np.arange(units), labels=labels)


def test_refitted_p_values_are_uniform_where_the_latents_say_nothing():
    random = np.random.default_rng(0)
    raw, best = [], []
    for seed in range(SIMULATED):
        unit, features = episodes(random)
        result, _, _ = refitted(
            features, unit, random_vectors(random, 24), classes=0, objective=Cosine(), seed=seed
        )
        raw.append(result.raw[0])
        best.append(result.corrected.min())
    # p-values are multiples of 1/100: a share of that step is spread evenly over it.
    spread = random.random(SIMULATED) / 100
    assert kstest(np.array(raw) - spread, "uniform").pvalue > 0.01
    assert kstest(np.array(best) - spread, "uniform").pvalue > 0.01


def test_held_out_p_values_are_uniform_where_the_predictions_say_nothing():
    random = np.random.default_rng(1)
    raw, best = [], []
    for seed in range(SIMULATED):
        unit, said = episodes(random, cells=3, width=4)
        # labels that change within the unit, and resemble each other there
        _, values = episodes(random, cells=1, width=4)
        result = exchanged(said, unit, values[:, 0], Cosine(), seed=seed)
        raw.append(result.raw[0])
        best.append(result.corrected.min())
    spread = random.random(SIMULATED) / 100
    assert kstest(np.array(raw) - spread, "uniform").pvalue > 0.01
    assert kstest(np.array(best) - spread, "uniform").pvalue > 0.01


def exchanged(said, unit, values, objective, permutations=99, seed=0):
    rows = np.arange(len(unit)) * 3
    plan = plan_exchange(
        rows, values.astype(np.float32) if values.dtype.kind == "f" else values, unit,
        permutations=permutations, seed=seed,
    )  # fmt: skip
    scores = ExchangedScores(plan, objective, said.shape[1])
    for part in np.array_split(np.random.default_rng(2).permutation(len(unit)), 3):
        scores.update(torch.from_numpy(said[part]).float(), torch.from_numpy(rows[part]))
    return scores.test()


def test_frames_taken_for_units_would_give_false_alarms():
    # The same null as above, but frames exchange labels: this is what units are for.
    random = np.random.default_rng(3)
    alarms = 0
    for seed in range(100):
        unit, said = episodes(random, units=12, length=10, cells=1, width=4)
        _, values = episodes(random, units=12, length=10, cells=1, width=4)
        result = exchanged(said, np.arange(len(unit)), values[:, 0], Cosine(), seed=seed)
        alarms += result.raw[0] <= 0.05
    assert alarms > 20


def test_planted_signal_in_one_cell_is_found_there_alone_by_both_tests():
    random = np.random.default_rng(4)
    unit, features = episodes(random, units=40, cells=3, width=8)
    classes = np.arange(40) % 4
    features[:, 1, :4] += 2.0 * np.eye(4)[classes[unit]]
    labels = unit_labels(classes[unit], unit)
    refit, _, _ = refitted(
        features, unit, labels, classes=4, objective=CrossEntropy(), permutations=999
    )
    held_out = exchanged(features, unit, classes[unit], CrossEntropy(), permutations=999)
    for result in (refit, held_out):
        assert result.raw[1] == result.corrected[1] == 1 / 1000
        assert (result.raw[[0, 2]] > 0.05).all()
        assert result.observed[1] > result.null_mean[1] + 0.3


def test_refitting_by_linear_algebra_equals_refitting_by_hand():
    random = np.random.default_rng(5)
    unit, features = episodes(random, units=16)
    classes = np.arange(16) % 3
    features[:, 1, :3] += np.eye(3)[classes[unit]]
    labels = unit_labels(classes[unit], unit)
    result, plan, (train, val, test) = refitted(
        features, unit, labels, classes=3, objective=CrossEntropy(), permutations=15
    )
    permuted = np.zeros((16, 2))
    for place, drawn in enumerate(plan.drawn):
        y = classes[drawn][unit]
        for cell in range(2):
            x = features[:, cell]
            x = (x - x[train].mean(0)) / x[train].std(0, ddof=1)
            fits = [
                Ridge(alpha=s * train.sum()).fit(x[train], np.eye(3)[y[train]]) for s in STRENGTHS
            ]
            losses = [((fit.predict(x[val]) - np.eye(3)[y[val]]) ** 2).mean() for fit in fits]
            said = fits[int(np.argmin(losses))].predict(x[test]).argmax(-1)
            permuted[place, cell] = (said == y[test]).mean()
    by_hand = p_values(permuted[0], permuted[1:], kind="refit")
    np.testing.assert_allclose(result.observed, by_hand.observed)
    np.testing.assert_allclose(result.null_mean, by_hand.null_mean)
    np.testing.assert_array_equal(result.raw, by_hand.raw)
    np.testing.assert_array_equal(result.corrected, by_hand.corrected)


def test_exchanging_in_sums_equals_exchanging_the_labels_of_the_rows():
    random = np.random.default_rng(6)
    unit, said = episodes(random, units=9)
    classes = np.arange(9) % 3
    result = exchanged(said[:, :, :3], unit, classes[unit], CrossEntropy(), permutations=20)
    drawn = draw_permutations(np.zeros(9, np.int64), 20, 0)
    accuracy = [(said[:, :, :3].argmax(-1) == classes[d][unit][:, None]).mean(0) for d in drawn]
    np.testing.assert_allclose(result.null_mean, np.mean(accuracy, axis=0))


def test_units_of_other_lengths_exchange_whole_trajectories():
    # Unit 0 has four rows, unit 1 two: row 0 and 1 of unit 0 see row 0 of unit 1.
    unit = np.array([0, 0, 0, 0, 1, 1])
    values = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], np.float32)
    plan = plan_exchange(np.arange(6), values, unit, permutations=3)
    seen = {u: plan.values[plan.place[unit == 0, plan.own[u]]][:, 0].tolist() for u in (0, 1)}
    assert seen == {0: [1.0, 2.0, 3.0, 4.0], 1: [5.0, 5.0, 6.0, 6.0]}
    assert plan.values[plan.place[unit == 1, plan.own[0]]][:, 0].tolist() == [1.0, 3.0]


def test_many_units_exchange_labels_inside_small_blocks():
    random = np.random.default_rng(7)
    unit = np.repeat(np.arange(150), 2)
    values = random.normal(size=(300, 2)).astype(np.float32)
    plan = plan_exchange(np.arange(300), values, unit, permutations=5)
    assert plan.place.shape == (300, 64)
    for drawn in plan.drawn:
        partners = [unit[plan.place[2 * u, drawn[u]]] for u in range(150)]
        assert sorted(partners) == list(range(150))


def test_permutations_stay_inside_their_blocks_and_are_uniform_there():
    blocks = np.array([0, 1, 0, 1, 0])
    drawn = draw_permutations(blocks, 6000, seed=0)
    assert (blocks[drawn] == blocks).all()
    assert (np.sort(drawn, axis=1) == np.arange(5)).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 12
    # 500 expected each; five standard deviations
    assert np.abs(counts - 500).max() < 5 * 500**0.5


def test_the_corrected_p_value_is_that_of_the_best_cell_by_chance():
    permuted = np.array([[0.1, 0.9], [0.2, 0.3], [0.5, 0.1]])
    result = p_values(np.array([0.5, 0.95]), permuted, kind="refit")
    assert result.raw.tolist() == [2 / 4, 1 / 4]
    assert result.corrected.tolist() == [3 / 4, 1 / 4]


@pytest.mark.parametrize("broken", [0, 5])
def test_labels_that_change_within_a_unit_are_noticed(broken):
    unit, values = np.repeat(np.arange(3), 2), np.array([4, 4, 1, 1, 4, 4])
    found = unit_labels(values, unit)
    assert found is not None
    assert found.labels[found.code].tolist() == [4, 1, 4]
    values[broken] = 7
    assert unit_labels(values, unit) is None
