"""Discriminants of permuted labels, against scikit-learn's, fitted one by one."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from lightning_modules.closed_form.gram import GramSums
from lightning_modules.closed_form.kept_rows import KeptRows
from lightning_modules.objectives.cross_entropy import CrossEntropy
from lightning_modules.statistics.refit import plan_refit
from lightning_modules.statistics.refit_discriminant import RefitDiscriminant
from lightning_modules.statistics.unit_labels import unit_labels

SHRINKAGES = (0.05, 0.5)
UNITS, TRAINED, CLASSES = 20, 10, 3


def planted(width: int):
    """Rows of a unit resemble each other; the first dimensions know a little of the class."""
    random = np.random.default_rng(0)
    unit = np.repeat(np.arange(UNITS), 4)
    features = random.normal(size=(UNITS, width))[unit] + random.normal(size=(len(unit), width))
    classes = np.arange(UNITS) % CLASSES
    features[:, :CLASSES] += 2 * np.eye(CLASSES)[classes[unit]]
    return unit, features, classes


def splits_of(unit):
    return unit < TRAINED, (unit >= TRAINED) & (unit < 15), unit >= 15


def judged(kind, width):
    unit, features, classes = planted(width)
    train, val, test = splits_of(unit)
    plan = plan_refit(
        unit_labels(classes[unit], unit), np.arange(TRAINED), classes=CLASSES, permutations=12
    )
    x = torch.from_numpy(features)
    mean, std = x[train].mean(0)[None], x[train].std(0)[None]
    rows = int(train.sum())
    sums = (
        GramSums(mean, std, TRAINED) if kind == "sums" else KeptRows(mean, std, TRAINED, rows=rows)
    )
    targets = torch.nn.functional.one_hot(torch.from_numpy(unit[train]), TRAINED).double()
    sums.update(x[train][:, None], targets)
    cell = RefitDiscriminant(plan, CrossEntropy(), sums.cell(0), SHRINKAGES)
    normal = (x - mean[0]) / std[0]
    cell.validate(normal[val], torch.from_numpy(unit[val]))
    cell.choose()
    cell.update(normal[test], torch.from_numpy(unit[test]))
    return cell, plan, normal.numpy()


@pytest.mark.parametrize("kind", ["sums", "rows"])
@pytest.mark.parametrize("width", [8, 60])
def test_refitted_discriminants_are_scikit_learns_for_every_permutation(kind, width):
    cell, plan, x = judged(kind, width)
    unit, _, classes = planted(width)
    train, val, test = splits_of(unit)
    for place, drawn in enumerate(plan.drawn):
        y = classes[drawn][unit]
        assert len(np.unique(y[train])) == CLASSES, "scikit-learn knows no class without rows"
        fits = [
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(x[train], y[train])
            for s in SHRINKAGES
        ]
        losses = [
            -np.log(fit.predict_proba(x[val])[np.arange(val.sum()), y[val]]).sum() for fit in fits
        ]
        np.testing.assert_allclose(cell.losses[:, place], losses, rtol=1e-4)
        assert cell.chosen[place] == np.argmin(losses)
        right = (fits[int(np.argmin(losses))].predict(x[test]) == y[test]).sum()
        assert cell.total[place] == right
    assert cell.count == test.sum()
