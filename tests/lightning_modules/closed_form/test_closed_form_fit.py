"""Ridge and LDA through the trainer: the same data, results and checkpoints as trained probes."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from datamodules.latents import LatentDataModule
from lightning_modules.closed_form.lda import SHRINKAGES
from lightning_modules.closed_form.ridge import STRENGTHS
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.run_folder import results_of
from tests.planted import PLANTED_LAYER

ONE_CELL = 13_000
"""Bytes that hold one or two cells of the planted set, but not all of them."""


def fitted(trainer, data, **options) -> LinearProbe:
    probe = LinearProbe(**options)
    trainer(50).fit(probe, datamodule=data)
    return probe


def standardised(data, split):
    rows = data.rows[split]
    batch = data.reader.read(rows)
    statistics = data.statistics[0]
    x = (batch.features[0].double() - statistics.mean.double()) / statistics.std.double()
    return x.numpy(), batch.targets.numpy(), batch.control_targets.numpy()


def best_fit(fits, x, y, loss):
    losses = [loss(fit, x, y) for fit in fits]
    # the strongest of equal ones, as ours
    return len(losses) - 1 - int(np.argmin(losses[::-1]))


@pytest.mark.parametrize("target", ["task_id", "robot_state"])
def test_every_cell_equals_scikit_learns_ridge_with_the_strength_best_on_validation(
    planted, trainer, target
):
    data = LatentDataModule(str(planted), target=target, batch_size=16)
    probe = fitted(trainer, data, objective="ridge", controls=["shuffled"])
    (x, y, wrong), (x_val, y_val, wrong_val) = (standardised(data, s) for s in ("train", "val"))
    for group, (ours, theirs) in zip(
        probe.probe_groups, [(y, y_val), (wrong, wrong_val)], strict=True
    ):
        if target == "task_id":
            ours, theirs = np.eye(4)[ours], np.eye(4)[theirs]
        for cell in range(3):
            fits = [Ridge(alpha=s * len(x)).fit(x[:, cell], ours) for s in STRENGTHS]
            best = best_fit(
                fits, x_val[:, cell], theirs, lambda f, a, b: ((f.predict(a) - b) ** 2).sum()
            )
            assert group.penalty[cell] == STRENGTHS[best]
            scale = np.abs(fits[best].coef_).max()
            np.testing.assert_allclose(
                group.best_weight[cell].numpy().T, fits[best].coef_, atol=1e-6 * scale, rtol=1e-6
            )
            np.testing.assert_allclose(
                group.best_bias[cell].numpy(), fits[best].intercept_, atol=1e-6
            )


def test_every_cell_equals_scikit_learns_lda_with_the_shrinkage_best_on_validation(
    planted, trainer
):
    data = LatentDataModule(str(planted), batch_size=16)
    probe = fitted(trainer, data, objective="lda", controls=["shuffled"])
    (x, y, wrong), (x_val, y_val, wrong_val) = (standardised(data, s) for s in ("train", "val"))

    def loss(fit, a, b):
        return -np.log(fit.predict_proba(a)[np.arange(len(b)), b]).mean()

    for group, (ours, theirs) in zip(
        probe.probe_groups, [(y, y_val), (wrong, wrong_val)], strict=True
    ):
        for cell in range(3):
            fits = [
                LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(x[:, cell], ours)
                for s in SHRINKAGES
            ]
            best = best_fit(fits, x_val[:, cell], theirs, loss)
            assert group.penalty[cell] == SHRINKAGES[best]
            scores = (
                x_val[:, cell] @ group.best_weight[cell].numpy() + group.best_bias[cell].numpy()
            )
            np.testing.assert_allclose(
                torch.from_numpy(scores).softmax(-1).numpy(),
                fits[best].predict_proba(x_val[:, cell]), atol=1e-5,
            )  # fmt: skip


@pytest.mark.parametrize("objective", ["ridge", "lda"])
def test_a_closed_form_finds_the_planted_layer_alone_beside_all_controls(
    planted, trainer, objective
):
    data = LatentDataModule(str(planted), batch_size=16)
    probe = fitted(trainer, data, objective=objective)
    trainer().test(probe, datamodule=data, verbose=False)
    results = results_of(probe, "test", data.clusters)
    by_layer = {cell.cell.layer: cell for cell in results.cells}
    assert results.score_name == "accuracy"
    assert by_layer[PLANTED_LAYER].score > 0.99
    assert results.cells[results.chosen].cell.layer == PLANTED_LAYER
    assert by_layer[PLANTED_LAYER].metrics["balanced_accuracy"].value > 0.99
    assert by_layer[PLANTED_LAYER].selectivity.low > 0
    assert {"shuffled", "proprioception", "time"} <= set(by_layer[PLANTED_LAYER].controls)
    for layer in set(by_layer) - {PLANTED_LAYER}:
        assert by_layer[layer].gain[0] < 0


@pytest.mark.parametrize(("target", "floor"), [("instruction", 0.95)])
def test_ridge_reads_vectors_and_is_judged_as_the_target_is(planted, trainer, target, floor):
    data = LatentDataModule(str(planted), target=target, layer=PLANTED_LAYER, batch_size=16)
    probe = fitted(trainer, data, objective="ridge", controls="none")
    trainer().test(probe, datamodule=data, verbose=False)
    results = results_of(probe, "test", data.clusters)
    assert results.score_name == "cosine"
    assert results.cells[0].score > floor
    assert results.cells[0].metrics["r2"].value > 0.9


def test_more_passes_over_the_data_give_the_same_probes(planted, trainer):
    data = LatentDataModule(str(planted), expert="action", batch_size=16)
    whole = fitted(trainer, data, objective="ridge", controls=["shuffled", "time"])
    small = fitted(
        trainer, data, objective="ridge", controls=["shuffled", "time"], memory_budget=ONE_CELL
    )
    assert whole.solver is not None
    assert small.solver is not None
    assert len(whole.solver.passes) == 1
    assert len(small.solver.passes) > 3
    for one, two in zip(whole.probe_groups, small.probe_groups, strict=True):
        torch.testing.assert_close(one.best_weight, two.best_weight, rtol=1e-6, atol=1e-6)
        assert torch.equal(one.penalty, two.penalty)


def test_a_checkpoint_of_a_closed_form_is_that_of_any_probe(planted, trainer, tmp_path):
    data = LatentDataModule(str(planted), batch_size=16)
    probe, t = LinearProbe(objective="ridge", controls="none"), trainer(5)
    t.fit(probe, datamodule=data)
    t.save_checkpoint(tmp_path / "probe.ckpt")
    loaded = LinearProbe.load_from_checkpoint(tmp_path / "probe.ckpt", weights_only=True)
    features = next(iter(data.test_dataloader())).features
    assert torch.equal(loaded(features), probe(features))
    assert torch.equal(loaded.probe_groups[0].penalty, probe.probe_groups[0].penalty)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"memory_budget": 100}, {}, r"`memory_budget` must hold at least one cell, \d+ bytes"),
        ({"memory_budget": ONE_CELL}, {"expert": "action"}, r"`max_epochs` must allow \d+ passes"),
        ({"objective": "lda"}, {"target": "instruction"}, "suit the target instruction, but got"),
    ],
)
def test_what_a_closed_form_cannot_do_is_refused(planted, trainer, options, data, message):
    with pytest.raises(ValueError, match=message):
        trainer(1).fit(
            LinearProbe(**{"objective": "ridge", **options}),
            datamodule=LatentDataModule(str(planted), **data),
        )
