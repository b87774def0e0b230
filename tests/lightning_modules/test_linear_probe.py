import pytest
import torch
from scipy.stats import binom

from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.metrics.cluster_sums import mean_over_samples
from lightning_modules.run_folder import results_of
from tests.planted import FLOW_TIMES, LAYERS, PLANTED_LAYER, write_planted

FUSED_TOLERANCE = 1e-5
"""Relative and absolute, for weights after training: batched matrix products of another number
of cells may add in another order, and AdamW divides by the root of what came out."""


def fitted(trainer, data: LatentDataModule, epochs: int = 30, **options) -> LinearProbe:
    probe = LinearProbe(**{"controls": "none", **options})  # test_controls.py is about them
    trainer(epochs).fit(probe, datamodule=data)
    return probe


def weights(probe: LinearProbe, name: str = "weight") -> torch.Tensor:
    """Those of all groups as one vector."""
    return torch.cat([getattr(group, name).flatten() for group in probe.probe_groups])


def held_out(trainer, probe: LinearProbe, data: LatentDataModule):
    trainer().test(probe, datamodule=data, verbose=False)
    return results_of(probe, "test", data.clusters)


def test_a_planted_linear_map_is_recovered_in_its_layer_alone(planted, trainer):
    data = LatentDataModule(str(planted), batch_size=16)
    results = held_out(trainer, fitted(trainer, data), data)
    by_layer = {cell.cell.layer: cell for cell in results.cells}
    assert by_layer[PLANTED_LAYER].score > 0.99
    assert results.cells[results.chosen].cell.layer == PLANTED_LAYER
    assert by_layer[PLANTED_LAYER].gain[0] > 0
    for layer in set(LAYERS) - {PLANTED_LAYER}:
        assert by_layer[layer].gain[0] < 0


def test_random_labels_stay_at_chance(tmp_path, trainer):
    # Each episode shows the latents of a random one of 4 tasks: all 4 samples of an episode stand
    # or fall together, so with 32 test episodes the number of episodes right is binomial(n, 1/4).
    # All 3 cells must stay below its 1 - 1e-4 quantile; by chance alone one in 3,300 seeds fails.
    path = write_planted(tmp_path / "data", episodes=40, random_labels=True)
    data = LatentDataModule(str(path), batch_size=64)
    results = held_out(trainer, fitted(trainer, data, epochs=15), data)
    assert results.episodes == 32
    bound = binom.ppf(1 - 1e-4, results.episodes, 1 / 4) / results.episodes
    assert max(cell.score for cell in results.cells) < bound
    assert bound < 0.6


def test_a_cell_ends_where_it_would_have_ended_alone(planted, trainer):
    options = {"expert": "action", "batch_size": 16}
    grid = fitted(trainer, LatentDataModule(str(planted), **options), epochs=10, patience=3)
    assert grid.spec is not None
    group = grid.probe_groups[0]
    for layer, time in ((0, 1.0), (PLANTED_LAYER, 0.1)):
        data = LatentDataModule(str(planted), layer=layer, flow_time=time, **options)
        alone = fitted(trainer, data, epochs=10, patience=3)
        place = LAYERS.index(layer) * len(FLOW_TIMES) + FLOW_TIMES.index(time)
        assert alone.spec is not None
        assert grid.spec.cells[place] == alone.spec.cells[0]
        assert grid.best_epoch[place] == alone.best_epoch[0]
        single = alone.probe_groups[0]
        pairs = [
            (getattr(group, name)[place], getattr(single, name)[0])
            for name in ("best_weight", "best_bias", "best_loss")
        ]
        pairs += [
            (getattr(grid.scalers[0], name)[place], getattr(alone.scalers[0], name)[0])
            for name in ("mean", "std")
        ]
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=FUSED_TOLERANCE, atol=FUSED_TOLERANCE)


def test_training_twice_gives_the_same_bits(planted, trainer):
    first, second = (
        fitted(trainer, LatentDataModule(str(planted), batch_size=16), epochs=3) for _ in range(2)
    )
    assert torch.equal(weights(first), weights(second))


def test_each_cell_keeps_the_weights_of_its_own_best_epoch(planted, trainer):
    data = LatentDataModule(str(planted), batch_size=16)
    probe = fitted(trainer, data, patience=2)
    assert len(set(probe.best_epoch.tolist())) > 1
    trainer().validate(probe, datamodule=data, verbose=False)
    assert probe.evaluation is not None
    loss = mean_over_samples(*probe.evaluation.of(0).loss.compute())
    torch.testing.assert_close(loss, probe.best_loss, rtol=1e-6, atol=1e-6)


def test_a_cell_that_has_stopped_takes_no_later_weights(planted):
    data = LatentDataModule(str(planted), layer=[0, 2])
    data.setup()
    probe = LinearProbe(patience=2, controls="none")
    probe.build(probe.spec_of(data))
    (group,) = probe.probe_groups
    # The first cell is best at once and stops after two worse epochs; the second goes on.
    for epoch, losses in enumerate([(1.0, 9.0), (2.0, 8.0), (2.0, 7.0), (0.1, 6.0)]):
        with torch.no_grad():
            group.weight.fill_(float(epoch))
        probe.keep_best({0: torch.tensor(losses, dtype=torch.float64)})
    assert group.active(2).tolist() == [False, True]
    assert probe.best_loss.tolist() == [1.0, 6.0]
    assert group.best_weight[0].unique().tolist() == [0.0]
    assert group.best_weight[1].unique().tolist() == [3.0]


def test_training_ends_when_no_cell_improves_any_more(planted, trainer):
    probe = LinearProbe(patience=2, min_delta=10.0)
    t = trainer(50)
    t.fit(probe, datamodule=LatentDataModule(str(planted), batch_size=16))
    # Epoch 0 is better than nothing; the two that follow are not.
    assert t.current_epoch == 3


@pytest.mark.parametrize(("target", "floor"), [("instruction", 0.95), ("task_id", 0.99)])
def test_each_objective_learns_what_the_planted_layer_knows(planted, trainer, target, floor):
    data = LatentDataModule(str(planted), target=target, layer=PLANTED_LAYER, batch_size=16)
    results = held_out(trainer, fitted(trainer, data), data)
    assert results.cells[0].score > floor
    assert results.trivial < 0.3


def test_a_state_that_is_noise_is_not_read(planted, trainer):
    data = LatentDataModule(str(planted), target="robot_state", batch_size=16)
    results = held_out(trainer, fitted(trainer, data, epochs=5), data)
    assert results.score_name == "explained"
    assert max(cell.score for cell in results.cells) < 0.1


def test_a_checkpoint_holds_all_that_is_needed_in_plain_types(planted, trainer, tmp_path):
    data = LatentDataModule(str(planted), batch_size=16)
    probe = LinearProbe()
    t = trainer(2)
    t.fit(probe, datamodule=data)
    path = tmp_path / "probe.ckpt"
    t.save_checkpoint(path)
    torch.load(path, weights_only=True)
    loaded = LinearProbe.load_from_checkpoint(path, weights_only=True)
    features = next(iter(data.test_dataloader())).features
    assert loaded.spec == probe.spec
    assert torch.equal(loaded(features), probe(features))


def test_a_resumed_fit_ends_with_the_same_bits(planted, trainer, tmp_path):
    def data() -> LatentDataModule:
        return LatentDataModule(str(planted), batch_size=16)

    whole = fitted(trainer, data(), epochs=4)
    t = trainer(2)
    t.fit(LinearProbe(controls="none"), datamodule=data())
    t.save_checkpoint(tmp_path / "half.ckpt")
    resumed = LinearProbe(controls="none")
    trainer(4).fit(resumed, datamodule=data(), ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(weights(whole), weights(resumed))
    assert torch.equal(weights(whole, "best_weight"), weights(resumed, "best_weight"))


def test_a_checkpoint_of_other_cells_is_refused(planted, trainer, tmp_path):
    t = trainer(1)
    t.fit(LinearProbe(), datamodule=LatentDataModule(str(planted)))
    t.save_checkpoint(tmp_path / "probe.ckpt")
    other = LatentDataModule(str(planted), layer=0)
    with pytest.raises(ValueError, match=r"`data` must have the cells.*layer00'\]"):
        trainer().test(LinearProbe(), datamodule=other, ckpt_path=tmp_path / "probe.ckpt")


@pytest.mark.parametrize(
    ("same", "other", "message"),
    [
        ({}, {"seed": 1}, r"split as in training.*'seed': 0.*but got.*'seed': 1.*would be tested"),
        ({}, {"fractions": (0.2, 0.2, 0.6)}, r"split as in training.*0.6, 0.2, 0.2"),
        (
            {"target": "robot_state"},
            {"episode_range": "0:9"},
            r"target robot_state the meaning that it had in training",
        ),
    ],
)
def test_a_probe_is_not_tested_on_what_it_was_trained_on(
    planted, trainer, tmp_path, same, other, message
):
    t = trainer(1)
    t.fit(LinearProbe(), datamodule=LatentDataModule(str(planted), layer=0, **same))
    t.save_checkpoint(tmp_path / "probe.ckpt")
    data = LatentDataModule(str(planted), layer=0, **same, **other)
    with pytest.raises(ValueError, match=message):
        trainer().test(LinearProbe(), datamodule=data, ckpt_path=tmp_path / "probe.ckpt")


def test_an_objective_that_does_not_suit_the_target_is_refused(planted, trainer):
    with pytest.raises(ValueError, match="must suit the target task_id, but got 'cosine'"):
        fitted(trainer, LatentDataModule(str(planted)), objective="cosine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": "hinge"},
            "one of cross_entropy, cosine, mse, bce, ridge, lda, but got 'hinge'",
        ),
        ({"patience": 0}, "`patience` must be positive, but got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinearProbe(**options)


def test_uncertainty_is_over_tasks_where_the_split_is_by_task(tmp_path, trainer):
    path = write_planted(tmp_path / "data", tasks=8, episodes=4, samples=2)
    options = {"target": "instruction", "split_by": "task", "fractions": (0.5, 0.25, 0.25)}
    data = LatentDataModule(str(path), layer=0, seed=3, **options)
    results = held_out(trainer, fitted(trainer, data, epochs=1), data)
    assert results.unit == "task"
    assert results.units * 4 == results.episodes
