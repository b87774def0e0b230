import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from lightning_modules.metrics import bootstrap
from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.cluster_sums import ClusterSums, mean_by_group, mean_over_samples
from lightning_modules.metrics.grid_confusion import GridConfusion, balanced_accuracy


def random_values(seed: int, samples: int = 60, cells: int = 3, clusters: int = 5):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(samples, cells, generator=generator)
    return values, torch.randint(clusters, (samples,), generator=generator)


@given(st.integers(0, 1000), st.integers(1, 59))
def test_sums_do_not_depend_on_how_the_stream_is_cut(seed, cut):
    values, clusters = random_values(seed)
    whole, parts = ClusterSums(3, 5), ClusterSums(3, 5)
    whole.update(values, clusters)
    parts.update(values[:cut], clusters[:cut])
    parts.update(values[cut:], clusters[cut:])
    torch.testing.assert_close(whole.compute()[0], parts.compute()[0], rtol=1e-12, atol=0)
    assert torch.equal(whole.compute()[1], parts.compute()[1])


def test_means_of_all_and_of_groups_are_means_over_samples():
    values, clusters = random_values(1)
    sums = ClusterSums(3, 6)
    sums.update(values, clusters)
    torch.testing.assert_close(mean_over_samples(*sums.compute()), values.double().mean(0))
    groups = torch.tensor([0, 0, 1, 1, 1, 2])
    means = mean_by_group(*sums.compute(), groups, 3)
    expected = values[groups[clusters] == 1].double().mean(0)
    torch.testing.assert_close(means[:, 1], expected)
    assert means[:, 2].isnan().all()


def test_confusion_and_balanced_accuracy_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(4, (50, 2), generator=generator)
    targets = torch.randint(3, (50,), generator=generator)
    metric = GridConfusion(2, 4)
    metric.update(predictions[:20], targets[:20])
    metric.update(predictions[20:], targets[20:])
    for cell in range(2):
        expected = confusion_matrix(targets, predictions[:, cell], labels=range(4))
        np.testing.assert_array_equal(metric.compute()[cell].numpy(), expected)
    # scikit-learn warns about classes that are said but never true; ours leaves them out too.
    kept = predictions[:, 0].clamp(max=2)
    metric = GridConfusion(1, 3)
    metric.update(kept[:, None], targets)
    expected = balanced_accuracy_score(targets, kept)
    assert balanced_accuracy(metric.compute()).item() == expected


def test_an_interval_covers_the_truth_at_its_rate():
    # 40 clusters of unequal size whose means scatter around 0.3; nominal 95 %, percentile
    # intervals with so few clusters reach a little less: between 0.89 and 0.98 of 300 sets.
    random = np.random.default_rng(0)
    count = random.integers(5, 15, 40)
    covered = 0
    for seed in range(300):
        means = 0.3 + 0.1 * random.normal(size=40)
        total = (means * count)[None]
        low, high = cluster_bootstrap(total, count, resamples=400, seed=seed)[0]
        covered += low <= 0.3 <= high
    assert 0.89 < covered / 300 < 0.98


def test_episodes_are_drawn_and_not_frames():
    count = np.full(10, 100)
    total = np.where(np.arange(10) < 5, 100.0, 0.0)[None]
    low, high = cluster_bootstrap(total, count)[0]
    # Of 1000 frames the interval would be 0.47 to 0.53; of 10 episodes it is wide.
    assert low < 0.25
    assert high > 0.75


def test_an_interval_does_not_depend_on_how_many_draws_are_held_at_once(monkeypatch):
    random = np.random.default_rng(0)
    total, count = random.normal(size=(2, 30)), random.integers(1, 9, 30)
    whole = cluster_bootstrap(total, count)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 1000)
    np.testing.assert_allclose(cluster_bootstrap(total, count), whole, rtol=1e-12)


def test_one_episode_gives_no_interval():
    assert np.isnan(cluster_bootstrap(np.ones((2, 1)), np.array([7]))).all()
