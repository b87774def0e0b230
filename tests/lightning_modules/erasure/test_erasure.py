"""Erasure: after it a fresh linear probe is at chance, and nothing else is touched."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from datamodules.latents import LatentDataModule
from lightning_modules.erasure.erasing import erase
from lightning_modules.erasure.leace import leace, shrunk_covariance
from lightning_modules.erasure.mean_projection import mean_projection, random_projection
from tests.planted import PLANTED_LAYER, write_planted


def concept(n=600, d=12, k=4, seed=0):
    """A concept that stands slantwise to correlated noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    noise = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    x = torch.from_numpy(7.0 + noise + 4 * random.normal(size=(k, d))[labels])
    return x, torch.from_numpy(labels)


def moments(x, labels):
    z = torch.nn.functional.one_hot(labels).double()
    centred = x - x.mean(0)
    return centred.T @ centred / len(x), centred.T @ (z - z.mean(0)) / len(x), x.mean(0)


def maps(x, labels):
    covariance, cross, mean = moments(x, labels)
    return {
        "leace": leace(covariance, cross, mean),
        "shrunk": leace(shrunk_covariance(covariance, len(x)), cross, mean),
        "mean": mean_projection(cross, mean),
    }


@pytest.mark.parametrize("shrinkage", [False, True])
@pytest.mark.parametrize("n", [600, 9])
def test_leace_is_that_of_the_concept_erasure_library(shrinkage, n):
    x, labels = concept(n=n)
    z = torch.nn.functional.one_hot(labels).double()
    covariance, cross, mean = moments(x, labels)
    if shrinkage:
        covariance = shrunk_covariance(covariance, n)
    with warnings.catch_warnings():
        # concept-erasure 0.2.4 compiles with torch.jit, which torch 2.13 calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from concept_erasure import LeaceFitter
    fitter = LeaceFitter(
        x.shape[1], 4, dtype=torch.float64, shrinkage=shrinkage, constrain_cov_trace=False,
        svd_tol=1e-6,
    )  # fmt: skip
    theirs = fitter.update(x, z).eraser
    torch.testing.assert_close(leace(covariance, cross, mean)(x), theirs(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", ["leace", "shrunk", "mean"])
def test_after_erasure_a_fresh_probe_is_at_chance(method):
    x, labels = concept(n=4000)
    before = LogisticRegression().fit(x[:2000], labels[:2000]).score(x[2000:], labels[2000:])
    erased = maps(x[:2000], labels[:2000])[method](x)
    fresh = LogisticRegression().fit(erased[:2000], labels[:2000])
    assert before > 0.8
    # what is left are the 2,000 samples' own accidents
    assert fresh.score(erased[2000:], labels[2000:]) < 0.25 + 5 * (0.25 * 0.75 / 2000) ** 0.5
    unseen = LogisticRegression().fit(erased[2000:3000], labels[2000:3000])
    assert unseen.score(erased[3000:], labels[3000:]) < 0.35


@pytest.mark.parametrize("method", ["leace", "shrunk", "mean"])
def test_erasure_is_exact_idempotent_and_leaves_the_mean(method):
    x, labels = concept()
    change = maps(x, labels)[method]
    erased = change(x)
    _, cross, mean = moments(erased, labels)
    assert cross.abs().max() < 1e-10 * moments(x, labels)[1].abs().max()
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(change(erased), erased)
    assert change.u.shape == (12, 3)


def test_leace_changes_the_latents_less_than_the_projection_along_the_means():
    x, labels = concept()
    found = {name: (change(x) - x).square().sum() for name, change in maps(x, labels).items()}
    assert found["leace"] < found["mean"]


def test_products_of_changed_features_come_from_the_products_before():
    x, labels = concept()
    for change in maps(x, labels).values():
        covariance, _, _ = moments(change(x), labels)
        torch.testing.assert_close(change.congruent(moments(x, labels)[0]), covariance)


def test_random_directions_change_as_much_and_erase_nothing():
    x, labels = concept()
    covariance, cross, mean = moments(x, labels)
    change = leace(covariance, cross, mean)
    random = random_projection(change, covariance, mean, seed=1)
    size = [(f(x) - x).square().sum(1).mean() for f in (change, random)]
    assert size[0] == pytest.approx(float(size[1]))
    probe = LogisticRegression(max_iter=500).fit(random(x), labels)
    assert probe.score(random(x), labels) > 0.6


def test_a_concept_that_is_not_there_changes_nothing():
    x, labels = concept()
    covariance, cross, mean = moments(x, labels)
    change = leace(covariance, torch.zeros_like(cross), mean)
    torch.testing.assert_close(change(x), x)


@pytest.mark.parametrize("method", ["leace", "mean"])
def test_erasing_the_planted_layer_leaves_it_at_chance_on_samples_never_seen(tmp_path, method):
    path = write_planted(tmp_path / "data", episodes=30, samples=6, noise=0.5)
    data = LatentDataModule(str(path), fractions=(0.4, 0.3, 0.3))
    found = {cell.cell.layer: cell for cell in erase(data, method=method)}
    planted = found[PLANTED_LAYER]
    assert planted.scores["before"] > 0.99
    assert planted.scores["after"] < planted.scores["trivial"] + 0.1
    # 36 test episodes of 4 tasks: a binomial above 0.25 + 0.22 has a chance below 1 in 1,000
    assert planted.scores["after_unseen"] < 0.47
    assert planted.scores["random_unseen"] > 0.8
    assert planted.map.u.shape[1] == 3
    assert 0.3 < planted.removed < 1
    assert found[0].scores["before"] < 0.47


def test_cells_erased_a_few_at_a_time_are_the_same(planted):
    def all_maps(budget):
        data = LatentDataModule(str(planted), expert="action")
        return [cell.map.b for cell in erase(data, memory_budget=budget)]

    torch.testing.assert_close(all_maps(30_000), all_maps(2**30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "prayer"}, "`method` must be leace or mean, but got 'prayer'"),
        ({"memory_budget": 10}, r"`memory_budget` must hold at least one cell, \d+ bytes"),
    ],
)
def test_what_erasure_cannot_do_is_refused(planted, options, message):
    with pytest.raises(ValueError, match=message):
        list(erase(LatentDataModule(str(planted)), **options))
