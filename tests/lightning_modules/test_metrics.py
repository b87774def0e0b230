import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from datamodules.target_spec import TargetSpec
from lightning_modules.metrics.auroc import log_odds, pair_counts, score_bins
from lightning_modules.metrics.by_task import task_intervals
from lightning_modules.metrics.determination import Determination
from lightning_modules.metrics.estimate import Estimate, GridEstimates
from lightning_modules.metrics.grid_metric import MetricBatch, MetricContext, estimate_all
from lightning_modules.metrics.registry import METRICS, metrics_for
from lightning_modules.metrics.sample_means import target_ranks
from lightning_modules.metrics.unit_groups import deal_units, draw_weights

CELLS, EPISODES, STEPS = 3, 12, 8
AREA_TOLERANCE = 2e-3
"""Of an area under a curve whose scores are rounded to 256 values."""


def classes_context(classes: int = 4, **options) -> MetricContext:
    target = TargetSpec(
        name="x", objective="cross_entropy", size=classes, trivial=(1 / classes,) * classes,
        classes=tuple("abcdefghij"[:classes]),
    )  # fmt: skip
    return MetricContext(cells=CELLS, target=target, unit_of_cluster=np.arange(EPISODES), **options)


def vector_context(size: int = 5, objective: str = "cosine", **options) -> MetricContext:
    trivial = tuple(0.5 + 0.1 * i for i in range(size))
    target = TargetSpec(name="x", objective=objective, size=size, trivial=trivial)
    return MetricContext(cells=CELLS, target=target, unit_of_cluster=np.arange(EPISODES), **options)


def class_batch(seed: int, classes: int = 4, strength: float = 1.0) -> MetricBatch:
    generator = torch.Generator().manual_seed(seed)
    b = EPISODES * STEPS
    targets = torch.randint(classes, (b,), generator=generator)
    outputs = torch.randn(b, CELLS, classes, generator=generator)
    outputs += strength * torch.nn.functional.one_hot(targets, classes)[:, None]
    return MetricBatch(
        outputs=outputs, targets=targets, clusters=torch.arange(b) % EPISODES,
        timesteps=torch.arange(b) // EPISODES,
    )  # fmt: skip


def vector_batch(seed: int, size: int = 5) -> MetricBatch:
    generator = torch.Generator().manual_seed(seed)
    b = EPISODES * STEPS
    targets = 0.5 + torch.randn(b, size, generator=generator)
    outputs = targets[:, None] + torch.randn(b, CELLS, size, generator=generator)
    return MetricBatch(
        outputs=outputs, targets=targets, clusters=torch.arange(b) % EPISODES,
        timesteps=torch.arange(b) // EPISODES,
    )  # fmt: skip


def counted(name: str, context: MetricContext, batch: MetricBatch):
    metric = METRICS[name](context)
    metric.update(batch)
    return metric


def part(batch: MetricBatch, rows: torch.Tensor) -> MetricBatch:
    return MetricBatch(
        outputs=batch.outputs[rows], targets=batch.targets[rows], clusters=batch.clusters[rows],
        timesteps=batch.timesteps[rows],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reference"),
    [("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)],
)
def test_accuracies_are_those_of_scikit_learn(name, reference):
    batch = class_batch(0)
    found = counted(name, classes_context(), batch).compute()[name]
    for cell in range(CELLS):
        expected = reference(batch.targets, batch.outputs[:, cell].argmax(-1))
        assert found[cell] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("strength", [0.0, 1.0, 12.0])
def test_the_area_is_that_of_scikit_learn(classes, strength):
    batch = class_batch(1, classes, strength)
    found = counted("auroc", classes_context(classes), batch).compute()["auroc"]
    for cell in range(CELLS):
        p = torch.softmax(batch.outputs[:, cell].double(), -1).numpy()
        p = p[:, 1] if classes == 2 else p
        expected = roc_auc_score(batch.targets, p, multi_class="ovr")
        assert found[cell] == pytest.approx(expected, abs=AREA_TOLERANCE)


def test_rounding_the_scores_is_all_that_the_area_loses():
    batch = class_batch(2, 2)
    bins = score_bins(log_odds(batch.outputs, "cross_entropy"), torch.zeros(2))[..., 1]
    found = counted("auroc", classes_context(2), batch).compute()["auroc"]
    for cell in range(CELLS):
        expected = roc_auc_score(batch.targets, bins[:, cell])
        assert found[cell] == pytest.approx(expected, abs=1e-12)


def test_pairs_are_counted_as_one_would_by_hand():
    random = np.random.default_rng(0)
    positive, negative = random.integers(0, 4, (2, 3, 6))
    expected = np.zeros((3, 3))
    for g in range(3):
        for h in range(3):
            for v in range(6):
                for w in range(6):
                    order = 1.0 if v > w else 0.5 * (v == w)
                    expected[g, h] += order * positive[g, v] * negative[h, w]
    np.testing.assert_allclose(pair_counts(positive[None], negative[None])[0], expected)


def test_the_calibration_error_is_that_of_torchmetrics():
    batch = class_batch(3)
    metric = counted("calibration", classes_context(), batch)
    for cell in range(CELLS):
        expected = multiclass_calibration_error(
            torch.softmax(batch.outputs[:, cell], -1), batch.targets, 4, n_bins=15
        )
        assert metric.compute()["ece"][cell] == pytest.approx(expected.item(), abs=1e-6)
        assert sum(row["samples"] for row in metric.table(cell)) == EPISODES * STEPS
        gaps = [r["samples"] * abs(r["confidence"] - r["accuracy"]) for r in metric.table(cell)]
        assert sum(gaps) / (EPISODES * STEPS) == pytest.approx(expected.item(), abs=1e-6)
        known = [row for row in metric.table(cell) if row["low"] is not None]
        assert known
        assert all(row["low"] <= row["accuracy"] <= row["high"] for row in known)


def test_a_bin_that_one_episode_fills_has_no_interval():
    batch = class_batch(3)
    alone = dataclasses.replace(batch, clusters=torch.zeros_like(batch.clusters))
    table = counted("calibration", classes_context(), alone).table(0)
    assert table
    assert all(row["low"] is row["high"] is None for row in table)


def test_determination_is_that_of_scikit_learn():
    batch = vector_batch(4)
    metric = counted("r2", vector_context(objective="mse"), batch)
    assert isinstance(metric, Determination)
    for cell in range(CELLS):
        truth, said = batch.targets.double(), batch.outputs[:, cell].double()
        pooled = r2_score(truth, said, multioutput="variance_weighted")
        each = r2_score(truth, said, multioutput="raw_values")
        assert metric.compute()["r2"][cell] == pytest.approx(pooled, abs=1e-10)
        np.testing.assert_allclose(metric.by_dimension()[cell], each, atol=1e-10)


def test_a_shared_direction_lifts_the_raw_cosine_and_not_the_centred_one():
    # The embeddings of all instructions nearly coincide, and the probe says their mean: the
    # published "cosine 1.0000 with accuracy 0.015".
    generator = torch.Generator().manual_seed(0)
    offset = torch.full((5,), 30.0)
    targets = torch.randn(EPISODES * STEPS, 5, generator=generator)
    outputs = 0.1 * torch.randn(EPISODES * STEPS, CELLS, 5, generator=generator)
    spec = TargetSpec(name="x", objective="cosine", size=5, trivial=tuple(targets.mean(0).tolist()))
    context = MetricContext(
        cells=CELLS, target=spec, unit_of_cluster=np.arange(EPISODES), offset=offset
    )
    batch = vector_batch(0)
    batch = MetricBatch(
        outputs=outputs, targets=targets, clusters=batch.clusters, timesteps=batch.timesteps
    )
    found = counted("cosine", context, batch).compute()
    assert found["cosine_raw"].min() > 0.99
    assert np.abs(found["cosine_centred"]).max() < 0.2


def test_ranks_are_counted_as_one_would_by_hand():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7, 5, generator=generator)
    truth = torch.tensor([0, 3, 6, 6])
    outputs = torch.randn(4, CELLS, 5, generator=generator)
    ranks = target_ranks(outputs, table[truth], table)
    for row in range(4):
        for cell in range(CELLS):
            near = torch.cosine_similarity(outputs[row, cell], table, dim=-1)
            assert ranks[row, cell] == 1 + (near > near[truth[row]]).sum()


def test_a_constant_answer_retrieves_at_chance():
    table = torch.eye(10)
    answers = torch.zeros(10, 1, 10)
    ranks = target_ranks(answers, table, table)
    assert (ranks == 1 + 9 / 2).all()


def test_two_equal_instructions_do_not_count_against_each_other():
    table = torch.eye(3)[[0, 0, 1, 2]]
    assert target_ranks(table[:1, None], table[:1], table).item() == 1


def test_retrieval_is_centred_and_knows_its_chance():
    # Without centring the constant part of outputs and table would hide which row is meant.
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 5, generator=generator) + 100
    context = MetricContext(
        cells=CELLS, unit_of_cluster=np.arange(EPISODES), table=rows,
        target=TargetSpec(
            name="x", objective="cosine", size=5, trivial=tuple(rows.mean(0).tolist())
        ),
    )  # fmt: skip
    batch = vector_batch(0)
    targets = rows[torch.arange(len(batch.targets)) % 8]
    said = MetricBatch(
        outputs=targets[:, None].expand(-1, CELLS, -1) * 1.001, targets=targets,
        clusters=batch.clusters, timesteps=batch.timesteps,
    )  # fmt: skip
    metric = counted("retrieval", context, said)
    assert (metric.compute()["retrieval@1"] == 1).all()
    assert (metric.compute()["mrr"] == 1).all()
    chance = {"retrieval@1": 1 / 8, "retrieval@5": 5 / 8, "mrr": 0.3397321}
    assert metric.chance == pytest.approx(chance)


def test_phases_are_thirds_of_each_episode():
    batch = class_batch(5)
    steps = np.full(EPISODES, STEPS)
    metric = counted("phases", classes_context(steps_of_cluster=steps), batch)
    right = (batch.outputs.argmax(-1) == batch.targets[:, None]).double()
    for name, first, last in (("early", 0, 3), ("middle", 3, 6), ("late", 6, 8)):
        here = (batch.timesteps >= first) & (batch.timesteps < last)
        expected = right[here].mean(0).numpy()
        np.testing.assert_allclose(metric.compute()[f"phase_{name}"], expected)


def both_contexts():
    steps = np.full(EPISODES, STEPS)
    table = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    return (
        (classes_context(steps_of_cluster=steps), class_batch(6)),
        (vector_context(steps_of_cluster=steps, table=table), vector_batch(6)),
        (vector_context(objective="mse"), vector_batch(7)),
    )


@pytest.mark.parametrize(("context", "batch"), both_contexts())
def test_metrics_do_not_depend_on_how_the_stream_is_cut_or_shared_out(context, batch):
    whole, first, second = (metrics_for(context) for _ in range(3))
    assert whole
    for name, metric in whole.items():
        metric.update(batch)
        first[name].update(part(batch, torch.arange(0, 31)))
        second[name].update(part(batch, torch.arange(31, EPISODES * STEPS)))
        # As two ranks add up: every state is a sum.
        for state, how in metric._reductions.items():
            assert how is torch.sum or getattr(how, "__name__", "") == "dim_zero_sum"
            summed = getattr(first[name], state) + getattr(second[name], state)
            torch.testing.assert_close(summed, getattr(metric, state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("context", "batch"), both_contexts())
def test_a_draw_is_the_metric_of_the_drawn_episodes(context, batch):
    weights = np.array([[2, 0, 1, 1, 0, 3, 1, 0, 1, 1, 1, 1]], np.float64)
    rows = [torch.nonzero(batch.clusters == e)[:, 0] for e in range(EPISODES)]
    repeated = torch.cat([rows[e] for e in range(EPISODES) for _ in range(int(weights[0, e]))])
    for name, metric in metrics_for(context).items():
        metric.update(batch)
        again = METRICS[name](context)
        again.update(part(batch, repeated))
        drawn, expected = metric.weighted(weights), again.compute()
        assert set(drawn) == set(metric.names)
        for word in metric.names:
            np.testing.assert_allclose(drawn[word][:, 0], expected[word], rtol=1e-9)


def test_intervals_contain_the_value_and_know_chance():
    context, batch = both_contexts()[0]
    metrics = metrics_for(context)
    for metric in metrics.values():
        metric.update(batch)
    found = estimate_all(metrics.values(), draws=300)
    assert found["accuracy"].chance == 0.25
    assert found["auroc"].chance == 0.5
    for name, estimates in found.items():
        low, high = estimates.interval().T
        assert (low < high).all()
        if name != "ece":  # which draws can only raise
            assert ((low < estimates.value) & (estimates.value < high)).all()


def test_one_unit_gives_a_number_without_an_interval():
    context = MetricContext(
        cells=CELLS, target=classes_context().target, unit_of_cluster=np.zeros(EPISODES, np.int64)
    )
    estimate = counted("accuracy", context, class_batch(0)).estimates()["accuracy"].cell(1)
    assert not estimate.known
    assert Estimate.from_json(estimate.to_json()).value == estimate.value


def test_many_units_share_a_bounded_number_of_groups_of_equal_size():
    groups = deal_units(np.repeat(np.arange(1000), 3), 64)
    assert (groups.reshape(1000, 3) == groups.reshape(1000, 3)[:, :1]).all()
    sizes = np.bincount(groups[::3], minlength=64)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == 64


def test_an_interval_over_hands_of_units_covers_the_truth_at_its_rate():
    # 300 sets of 600 units in 64 hands: nominal 95 %, between 0.91 and 0.98.
    random, covered = np.random.default_rng(0), 0
    hand = deal_units(np.arange(600), 64)
    for seed in range(300):
        values = np.bincount(hand, random.normal(size=600), minlength=64)
        count = np.bincount(hand, minlength=64)
        weights = draw_weights(count, draws=300, seed=seed)
        means = (weights @ values) / (weights @ count)
        low, high = np.percentile(means, [2.5, 97.5])
        covered += low <= 0 <= high
    assert 0.91 < covered / 300 < 0.98


def test_groups_without_samples_are_never_drawn():
    weights = draw_weights(np.array([5, 0, 2, 1]), draws=50)
    assert (weights[:, 1] == 0).all()
    assert (weights.sum(1) == 3).all()


def test_a_difference_to_a_control_is_taken_draw_by_draw():
    draws = np.random.default_rng(0).normal(size=(1, 500))
    one = GridEstimates(value=np.array([0.5]), draws=0.5 + draws, chance=None)
    two = GridEstimates(value=np.array([0.2]), draws=0.2 + draws, chance=None)
    low, high = one.minus(two).interval()[0]
    assert low == pytest.approx(0.3)
    assert high == pytest.approx(0.3)


def test_a_task_of_one_episode_has_no_interval():
    total, count = np.arange(8.0)[None], np.full(8, 2)
    found = task_intervals(total, count, np.array([0, 0, 0, 0, 1, 2, 2, 2]), 3)
    assert np.isnan(found[0, 1]).all()
    assert (found[0, [0, 2], 0] < found[0, [0, 2], 1]).all()


@pytest.mark.parametrize(
    ("context", "names"),
    [
        (classes_context(), {"accuracy", "balanced_accuracy", "auroc", "calibration"}),
        (vector_context(), {"cosine"}),
        (vector_context(objective="mse"), {"cosine", "r2"}),
        (vector_context(objective="mse", size=1), {"r2"}),
        (vector_context(objective="bce"), {"auroc", "cosine"}),
    ],
)
def test_each_target_has_the_metrics_that_make_sense(context, names):
    assert set(metrics_for(context)) == names
