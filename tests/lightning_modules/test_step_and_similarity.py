"""Scores by rollout step, recall by class, similarity by instruction: numbers and figures."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score

from datamodules.target_spec import TargetSpec
from lightning_modules.figures.confusion_matrix import draw_confusion
from lightning_modules.figures.probe_figures import probe_figures
from lightning_modules.figures.rollout_steps import step_grid
from lightning_modules.figures.similarity_matrix import draw_similarity, half_widths, image_of
from lightning_modules.metrics.class_recall import BalancedAccuracy
from lightning_modules.metrics.estimate import percentiles
from lightning_modules.metrics.grid_metric import MetricBatch, MetricContext
from lightning_modules.metrics.similarity import SimilarityGap
from lightning_modules.metrics.step_sums import StepSums, drawn_means, stretch_length
from lightning_modules.metrics.unit_groups import draw_weights
from lightning_modules.results import ProbeResults
from tests.lightning_modules.test_controls import held_out
from tests.lightning_modules.test_metrics import class_batch, classes_context
from tests.planted import PLANTED_LAYER, write_planted


@pytest.mark.parametrize(
    ("last", "stride", "length"),
    [(70, 10, 10), (0, 1, 1), (150, 10, 20), (11, 1, 1), (12, 1, 2), (605, 5, 55)],
)
def test_stretches_are_whole_strides_and_at_most_twelve(last, stride, length):
    assert stretch_length(last, stride) == length
    assert last // length < 12


def test_sums_by_step_are_means_of_the_samples_in_each_stretch():
    random = np.random.default_rng(0)
    clusters = random.integers(6, size=300)
    timesteps = 10 * random.integers(15, size=300)
    values = random.random((300, 2))
    sums = StepSums(2, np.arange(6) // 2, np.full(6, 141), 10)
    for cut in (slice(0, 170), slice(170, 300)):
        sums.update(*(torch.from_numpy(x[cut]) for x in (values, clusters, timesteps)))
    total, count = sums.compute()
    assert sums.starts == [20 * i for i in range(8)]
    weights = np.array([[1.0, 1, 1], [2, 0, 0]])
    means = drawn_means(total, count, weights)
    for stretch in range(8):
        here = timesteps // 20 == stretch
        np.testing.assert_allclose(means[:, stretch, 0], values[here].mean(0))
        np.testing.assert_allclose(means[:, stretch, 1], values[here & (clusters < 2)].mean(0))


def test_recalls_are_those_of_scikit_learn_with_intervals_over_units():
    batch = class_batch(0)
    metric = BalancedAccuracy(classes_context())
    metric.update(batch)
    found = metric.recalls(1, draws=200)
    said = batch.outputs[:, 1].argmax(-1)
    expected = recall_score(batch.targets, said, average=None)  # pyright: ignore[reportArgumentType] - as documented
    np.testing.assert_allclose([found[i].value for i in range(4)], expected)
    assert all(found[i].low <= found[i].value <= found[i].high for i in range(4))


def vectors(outputs, targets, table, cells=1):
    target = TargetSpec(
        name="x", objective="cosine", size=table.shape[1],
        trivial=tuple(table.mean(0).tolist()),
    )  # fmt: skip
    context = MetricContext(cells=cells, target=target, unit_of_cluster=np.arange(10), table=table)
    metric = SimilarityGap(context)
    rows = torch.arange(len(outputs))
    metric.update(MetricBatch(outputs=outputs, targets=targets, clusters=rows % 10, timesteps=rows))
    return metric


def test_perfect_readings_give_the_embeddings_own_matrix_and_constant_ones_no_gap():
    table = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    own = torch.arange(40) % 4
    said = torch.stack([table[own], table[:1].expand(40, -1)], dim=1)
    metric = vectors(said, table[own], table, cells=2)
    np.testing.assert_allclose(metric.matrix(0), metric.embeddings(), atol=1e-6)
    gaps = metric.compute()["similarity_gap"]
    perfect = metric.embeddings()
    expected = 1 - (perfect.sum() - 4) / 12
    np.testing.assert_allclose(gaps, [expected, 0], atol=1e-6)


def test_entries_of_the_matrix_have_intervals_over_units_where_there_are_several():
    random = torch.Generator().manual_seed(1)
    table = torch.randn(3, 6, generator=random)
    own = torch.tensor([i % 10 % 2 if i % 10 < 9 else 2 for i in range(200)])  # 2: unit 9 alone
    said = (table[own] + torch.randn(200, 6, generator=random))[:, None]
    metric = vectors(said, table[own], table)
    low, high = metric.matrix_ends(0, draws=400)
    matrix = metric.matrix(0)
    assert np.isnan([low[2], high[2]]).all()
    assert (low[:2] < matrix[:2]).all()
    assert (matrix[:2] < high[:2]).all()
    # The same by hand, for the cosine of the readings of 0 to 1.
    mean = table.mean(0)
    unit = torch.nn.functional.normalize
    cosine = (unit(said[:, 0] - mean, dim=-1) @ unit(table[1] - mean, dim=0)).numpy()
    weights = draw_weights(np.ones(10, np.int64), draws=400)
    of_unit = [cosine[np.arange(unit, 200, 10)].mean() for unit in range(0, 9, 2)]
    drawn = weights[:, 0:9:2] @ of_unit / weights[:, 0:9:2].sum(1)
    ends = percentiles(drawn[None], units=5)[0]
    np.testing.assert_allclose([low[0, 1], high[0, 1]], ends, atol=1e-9)


def test_instructions_of_one_embedding_share_a_row():
    table = torch.eye(3)[[0, 1, 0, 2]]
    metric = vectors(table[[0, 1, 2, 3] * 5][:, None], table[[0, 1, 2, 3] * 5], table)
    assert metric.kept == {0: [0, 2], 1: [1], 3: [3]}
    assert metric.matrix(0).shape == (3, 3)
    assert metric.rows.reshape(-1, 3).sum(0).tolist() == [10, 5, 5]


def test_an_instruction_that_the_split_has_not_leaves_an_empty_row():
    table = torch.eye(3)
    metric = vectors(table[[0, 1] * 10][:, None], table[[0, 1] * 10], table)
    matrix = metric.matrix(0)
    assert np.isnan(matrix[2]).all()
    assert np.isfinite(matrix[:2]).all()
    assert np.isfinite(metric.estimates(draws=50)["similarity_gap"].cell(0).value)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Only the first half of each episode shows the task."""
    from tests import planted

    class Early(planted.PlantedLatents):
        def sample(self, task, timestep, episode=0):
            wrong = int(self.random.integers(len(self.directions)))
            return super().sample(task if timestep < 4 else wrong, timestep, episode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted, "PlantedLatents", Early)
        return write_planted(tmp_path_factory.mktemp("early") / "data", samples=8)


def test_what_only_the_first_steps_show_is_seen_in_the_first_steps_alone(early, trainer, tmp_path):
    controls = ["shuffled", "proprioception", "time"]
    results = held_out(trainer, early, layer=[0, PLANTED_LAYER], controls=controls)
    steps, scores, margins = step_grid(results)
    assert steps == [0, 5, 10, 15, 20, 25, 30, 35]
    assert scores[1, :4].min() > 0.9
    assert scores[1, 4:].mean() < 0.6
    assert margins[1, :4].min() >= 0  # with eight test episodes a control can be lucky
    assert margins[1, :4].mean() > margins[1, 4:].mean() + 0.2
    assert margins[1, 4:].max() < 0.3
    chosen = results.cells[results.chosen]
    assert sum(e.samples for e in chosen.by_step) == results.samples
    mean = sum(e.samples * e.score.value for e in chosen.by_step) / results.samples
    assert mean == pytest.approx(chosen.score)
    assert ProbeResults.from_json(results.to_json()) == results
    assert "steps" in dict(probe_figures(results))
    check_confusion(results)


def test_readings_of_instructions_have_a_matrix_beside_their_control(planted, trainer):
    results = held_out(trainer, planted, layer=PLANTED_LAYER, target="instruction")
    matrix = results.similarity
    assert matrix is not None
    read, perfect, control = map(image_of, (matrix.read, matrix.perfect, matrix.control))
    assert np.abs(read - perfect).max() < 0.2
    assert np.diag(control).mean() < 0.5
    assert results.cells[0].metrics["similarity_gap"].low > 0.5
    assert len(matrix.names) == 4
    seen = np.isfinite(read) & np.isfinite(image_of(matrix.low))
    assert seen.any()
    assert (image_of(matrix.low) <= read)[seen].all()
    assert (read <= image_of(matrix.high))[seen].all()
    assert ((half_widths(matrix) < 0.5) == seen).all()
    figure = dict(probe_figures(results))["similarity"]
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[0].startswith("the probe\nown minus others")
    assert "control: trained on\nexchanged instructions" in titles
    assert ProbeResults.from_json(results.to_json()) == results
    check_rows(results, matrix)


def check_rows(results, matrix):
    """An instruction that the split does not have gets a column and no row."""
    fewer = dataclasses.replace(matrix, read=((None,) * 4, *matrix.read[1:]))
    figure = draw_similarity(dataclasses.replace(results, similarity=fewer))
    assert f"no samples of:\n0  {matrix.names[0]}" in figure.get_supxlabel()
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), image_of(matrix.read)[1:])
    assert [label.get_text()[-1] for label in axes.get_yticklabels()] == ["1", "2", "3"]
    assert len(axes.get_xticklabels()) == 4


def check_confusion(results):
    """Each class has its interval and its control."""
    assert list(results.class_recall) == list(results.classes)
    known = [e for e in results.class_recall.values() if e.known]
    assert known
    assert all(e.low <= e.value <= e.high for e in known)
    assert np.mean([e.value for e in results.class_recall.values()]) > 0.5
    assert np.mean(list(results.control_recall.values())) < 0.5
    figure = draw_confusion(results)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"recognised, 95 % interval", "trained on exchanged targets", "chance"}
    bare = dataclasses.replace(results, class_recall={}, control_recall={})
    assert len(draw_confusion(bare).axes) == 1
