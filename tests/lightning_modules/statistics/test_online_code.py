import math

import numpy as np
import pytest
import torch

from lightning_modules.statistics.online_code import block_of_unit, online_code
from tests.lightning_modules.statistics.discriminant_code import prefix_losses


def lda_code(x, labels, unit, classes, seed=0):
    blocks = block_of_unit(int(unit.max()) + 1, seed=seed)[unit]
    losses = prefix_losses(
        torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(blocks), classes=classes
    )
    counts = np.bincount(blocks)
    code = online_code(np.array([losses]), int(counts[0]), counts[1:], classes)
    assert code.samples == len(labels)
    return code


def simulated(signal, seed=0, units=100, length=4, classes=4, d=12):
    random = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), length)
    labels = (np.arange(units) % classes)[unit]
    return random.normal(size=(len(unit), d)) + signal * np.eye(d)[labels], labels, unit


def test_a_probe_that_knows_nothing_needs_the_uniform_code():
    samples = np.array([20, 40])
    code = online_code(samples[None] * math.log(5), 10, samples, 5)
    assert code.bits == pytest.approx(code.uniform)
    assert code.uniform == pytest.approx(70 * math.log2(5))
    assert code.bits_a_sample == pytest.approx(math.log2(5))


def test_a_perfect_probe_pays_for_the_first_block_alone():
    code = online_code(np.zeros((1, 2)), 10, np.array([20, 40]), 4)
    assert code.bits == pytest.approx(20)
    assert code.compression == pytest.approx(7)


def test_the_code_is_shorter_the_clearer_the_latents_and_never_short_without_signal():
    clear, faint, none = (
        lda_code(*simulated(signal), classes=4).compression[0] for signal in (4.0, 1.0, 0.0)
    )
    assert clear > faint > none
    assert clear > 4
    # Without signal the labels cost their entropy and the price of learning.
    assert 0.8 < none < 1.0


def test_labels_that_take_many_examples_to_learn_take_a_longer_code():
    # Both are read perfectly in the end; one stands in a direction of its own, the other in the
    # sum of many, each as large as the noise that hides it from few examples.
    x, labels, unit = simulated(3.0, d=12)
    spread, _, _ = simulated(0.0, seed=1, d=120)
    directions = np.random.default_rng(2).normal(size=(4, 120)) / 120**0.5
    spread += 3.0 * directions[labels]
    easy, hard = (lda_code(a, labels, unit, classes=4).bits[0] for a in (x, spread))
    assert easy < hard


def test_a_class_that_appears_late_has_a_finite_price():
    x, labels, unit = simulated(2.0, units=12, classes=6)
    code = lda_code(x, labels, unit, classes=6)
    assert np.isfinite(code.bits).all()


def test_probabilities_of_the_closed_form_add_up_to_one():
    # The code of one row, summed over all labels that it could have, is that of a probability.
    x, labels, unit = simulated(1.0, units=6, length=2, classes=3)
    blocks = torch.from_numpy((unit >= 5).astype(np.int64))
    total = 0.0
    for label in range(3):
        changed = labels.copy()
        changed[-1] = label
        losses = prefix_losses(
            torch.from_numpy(x[: len(x)])[[*range(10), 11]],
            torch.from_numpy(changed)[[*range(10), 11]],
            blocks[[*range(10), 11]],
            classes=3,
            shrinkages=[0.3],
        )
        total += math.exp(-losses[0])
    assert total == pytest.approx(1)


@pytest.mark.parametrize("units", [2, 3, 60, 1000])
def test_blocks_grow_and_keep_every_unit_once(units):
    sizes = np.bincount(block_of_unit(units, seed=1))
    assert sizes.sum() == units
    assert (sizes > 0).all()
    assert len(sizes) >= 2 or units == 1
    if units == 1000:
        assert sizes.tolist() == [20, 20, 40, 80, 160, 320, 360]


def test_one_unit_is_too_few_for_a_code():
    with pytest.raises(
        ValueError, match="`units` must be at least 2 for an online code, but got 1"
    ):
        block_of_unit(1, seed=0)
