"""Closed forms against scikit-learn, and against what planted data allow in theory."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from lightning_modules.closed_form.gram import GramSums
from lightning_modules.closed_form.kept_rows import KeptRows
from lightning_modules.closed_form.lda import lda_path
from lightning_modules.closed_form.ridge import ridge_path

TOLERANCE = 1e-6
"""Relative to the largest weight."""


def grid(n=90, c=3, d=20, k=4, seed=0, offset=50.0, dtype=torch.float32):
    """Features far from zero, so that sums that are not centred would lose their digits."""
    random = torch.Generator().manual_seed(seed)
    features = offset + 3 * torch.randn(n, c, d, generator=random)
    labels = torch.arange(n) % k
    targets = torch.nn.functional.one_hot(labels).double()
    features[:, 1, :k] += 2 * targets.float()
    return features.to(dtype), targets, labels


def summed(kind, features, targets, cut=(17, 40)):
    mean, std = features.float().mean(0), features.float().std(0)
    columns = targets.shape[1]
    sums = (
        GramSums(mean, std, columns)
        if kind == "sums"
        else KeptRows(mean, std, columns, rows=len(features))
    )
    for x, y in zip(features.tensor_split(cut), targets.tensor_split(cut), strict=True):
        sums.update(x, y)
    normal = (features.double() - mean.double()) / std.double()
    return list(sums.cells()), normal.numpy()


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["sums", "rows"])
@pytest.mark.parametrize("width", [20, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ridge_of_every_cell_equals_scikit_learns(kind, width, dtype):
    features, targets, _ = grid(d=width, dtype=dtype)
    targets = targets + torch.randn(targets.shape, generator=torch.Generator().manual_seed(5))
    cells, normal = summed(kind, features, targets)
    strengths = (1e-3, 1.0, 30.0)
    for place, cell in enumerate(cells):
        weights, bias = ridge_path(cell, strengths)
        for i, strength in enumerate(strengths):
            theirs = Ridge(alpha=strength * len(features)).fit(normal[:, place], targets.numpy())
            close(weights[i].numpy().T, theirs.coef_)
            close(bias[i].numpy(), theirs.intercept_)


@pytest.mark.parametrize("kind", ["sums", "rows"])
@pytest.mark.parametrize("solver", ["lsqr", "eigen"])
@pytest.mark.parametrize("width", [20, 200])
def test_lda_gives_scikit_learns_probabilities(kind, solver, width):
    features, targets, labels = grid(d=width)
    cells, normal = summed(kind, features, targets)
    shrinkages = (0.01, 0.5)
    for place, cell in enumerate(cells):
        weights, bias = lda_path(cell, shrinkages)
        for i, shrinkage in enumerate(shrinkages):
            theirs = LinearDiscriminantAnalysis(solver=solver, shrinkage=shrinkage)
            theirs.fit(normal[:, place], labels.numpy())
            scores = torch.from_numpy(normal[:, place]) @ weights[i] + bias[i]
            close(scores.softmax(-1).numpy(), theirs.predict_proba(normal[:, place]))


def test_sums_do_not_depend_on_how_the_stream_is_cut():
    features, targets, _ = grid()
    first, _ = summed("sums", features, targets, cut=(1, 2, 50))
    second, _ = summed("sums", features, targets, cut=(89,))
    for a, b in zip(first, second, strict=True):
        close(a.ridge([3.0])[0].numpy(), b.ridge([3.0])[0].numpy())


def test_a_class_without_training_rows_is_never_said():
    features, targets, _ = grid()
    with_empty = torch.cat([targets, torch.zeros(len(targets), 1)], dim=1)
    cells, normal = summed("rows", features, with_empty)
    x = torch.from_numpy(normal[:, 1])
    for weights, bias in (lda_path(cells[1], [0.1]), ridge_path(cells[1], [0.1])):
        scores = x @ weights[0] + bias[0]
        assert scores.isfinite().all()
        assert (scores.argmax(-1) < 4).all()


def test_features_that_never_vary_within_a_class_give_finite_discriminants():
    labels = torch.arange(40) % 2
    targets = torch.nn.functional.one_hot(labels).double()
    features = labels[:, None, None].float().expand(40, 1, 3).contiguous()
    cells, normal = summed("rows", features, targets)
    weights, bias = lda_path(cells[0], [0.5])
    scores = torch.from_numpy(normal[:, 0]) @ weights[0] + bias[0]
    assert torch.equal(scores.argmax(-1), labels)


def test_a_penalty_too_weak_for_singular_features_is_refused():
    features, targets, _ = grid(d=20)
    features[:, :, 1:] = features[:, :, :1]
    cells, _ = summed("sums", features, targets)
    with pytest.raises(ValueError, match=r"`strengths` must be large enough.*but got a shift of"):
        ridge_path(cells[0], [0.0])


@pytest.mark.parametrize(("noise", "seed"), [(0.5, 0), (2.0, 1)])
def test_a_planted_linear_map_is_recovered_with_the_r2_that_its_noise_allows(noise, seed):
    # y = xW + noise with |W| columns of length 1: R² in theory is 1 / (1 + noise²). Estimating d
    # weights from n rows costs noise² d/n, so the held-out R² is 1 - (noise² (1 + d/n)) / (1 +
    # noise²); over 20,000 test rows its spread is below 0.01.
    random = np.random.default_rng(seed)
    n, d, k, test = 4000, 40, 3, 20_000
    w = random.normal(size=(d, k))
    w /= np.linalg.norm(w, axis=0)
    x = random.normal(size=(n + test, d)).astype(np.float32)
    y = x @ w + noise * random.normal(size=(n + test, k))
    train = torch.from_numpy(x[:n, None])
    cells, _ = summed("sums", train, torch.from_numpy(y[:n]))
    mean, std = train.mean(0)[0].numpy(), train.std(0)[0].numpy()
    weights, bias = ridge_path(cells[0], [1e-6])
    said = (x[n:] - mean) / std @ weights[0].numpy() + bias[0].numpy()
    r2 = 1 - ((y[n:] - said) ** 2).sum() / ((y[n:] - y[n:].mean(0)) ** 2).sum()
    assert r2 == pytest.approx(1 - noise**2 * (1 + d / n) / (1 + noise**2), abs=0.015)


def test_label_noise_caps_the_accuracy_where_theory_does():
    # A share p of the labels is drawn anew among k classes: of the held-out noisy labels, the true
    # class is right for 1 - p (k - 1)/k.
    random, k, n, p = np.random.default_rng(3), 5, 6000, 0.4
    truth = random.integers(k, size=n)
    x = 4.0 * np.eye(k)[truth] + random.normal(size=(n, k)) * 0.5
    labels = np.where(random.random(n) < p, random.integers(k, size=n), truth)
    half = n // 2
    features = torch.from_numpy(x[:half, None].astype(np.float32))
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels[:half])).double()
    cells, _ = summed("sums", features, targets)
    mean, std = features.mean(0)[0].numpy(), features.std(0)[0].numpy()
    for weights, bias in (ridge_path(cells[0], [1e-3]), lda_path(cells[0], [0.01])):
        said = ((x[half:] - mean) / std @ weights[0].numpy() + bias[0].numpy()).argmax(-1)
        right = (said == labels[half:]).mean()
        # five standard deviations of a share of 3,000 labels
        assert right == pytest.approx(1 - p * (k - 1) / k, abs=5 * (0.25 / half) ** 0.5)


def test_the_rare_class_of_an_imbalanced_set_is_not_forgotten_by_lda():
    # Two Gaussians at distance 4 with shares 0.95 and 0.05: the best classifier finds
    # Phi(2 - log(19)/4) = 0.897 of the rare class.
    random, n = np.random.default_rng(4), 20_000
    rare = (random.random(n) < 0.05).astype(np.int64)
    x = (random.normal(size=(n, 3)) + 4 * rare[:, None] * np.eye(3)[0]).astype(np.float32)
    features, half = torch.from_numpy(x[:, None]), n // 2
    targets = torch.nn.functional.one_hot(torch.from_numpy(rare)).double()
    cells, _ = summed("sums", features[:half], targets[:half])
    mean, std = features[:half].mean(0)[0].numpy(), features[:half].std(0)[0].numpy()
    weights, bias = lda_path(cells[0], [1e-3])
    said = ((x[half:] - mean) / std @ weights[0].numpy() + bias[0].numpy()).argmax(-1)
    found = said[rare[half:] == 1].mean()
    assert found == pytest.approx(0.897, abs=0.05)
