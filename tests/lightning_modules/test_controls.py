import dataclasses

import pytest
import torch

from datamodules.cell import Cell
from datamodules.latents import LatentDataModule
from lightning_modules.controls import registry
from lightning_modules.grid_product import said_by
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.probe_group import FeatureScaler, GroupSpec, ProbeGroup
from lightning_modules.results import ProbeResults
from lightning_modules.run_folder import results_of, write_csv
from lightning_modules.verdict import betrays_leak, verdict
from tests.planted import TEXT, VELOCITY, write_planted

TOLERANCE = 1e-5
"""As in test_linear_probe.py: other numbers of cells, other order of the sums."""


BUT_THE_CODE = ["shuffled", "proprioception", "time"]
"""Controls that a verdict looks at; the online code, of a dozen more probes, is not one."""


def fitted(trainer, data: LatentDataModule, epochs: int = 30, **options) -> LinearProbe:
    probe = LinearProbe(**options)
    trainer(epochs).fit(probe, datamodule=data)
    return probe


def held_out(
    trainer, path, *, epochs: int = 30, controls="all", rate: float = 1e-3, **options
) -> ProbeResults:
    data = LatentDataModule(str(path), batch_size=16, **options)
    probe = fitted(trainer, data, epochs, controls=controls, learning_rate=rate)
    trainer().test(probe, datamodule=data, verbose=False)
    return results_of(probe, "test", data.clusters)


def test_what_a_layer_knows_is_decodable_beyond_every_control(planted, trainer):
    results = held_out(trainer, planted)
    cell = results.cells[results.chosen]
    assert set(cell.controls) == {"shuffled", "proprioception", "time"}
    assert set(results.left_out) == {"random_projection", "untrained"}
    assert cell.selectivity is not None
    assert cell.selectivity.low > 0.3
    assert cell.selectivity.value == pytest.approx(
        cell.score - cell.controls["shuffled"].score.value
    )
    assert str(verdict(results)) == "decodable on new episodes"
    others = [c for i, c in enumerate(results.cells) if i != results.chosen]
    assert {verdict(results, c).word for c in others} == {"not decodable"}


def test_a_target_that_follows_the_clock_is_explained_by_it(tmp_path, trainer):
    path = write_planted(tmp_path / "data", late_tasks=True)
    results = held_out(trainer, path, layer=2, controls=BUT_THE_CODE)
    assert results.cells[0].score > 0.99
    assert results.cells[0].controls["time"].score.value > 0.99
    found = verdict(results)
    assert found.word == "explained by a control"
    assert found.reason.endswith("that of the control time.")


def test_a_leak_is_said_and_betrayed_by_the_control_task(tmp_path, trainer):
    path = write_planted(tmp_path / "data", tasks=2, episodes=8, samples=12, fingerprints=True)
    leaky = held_out(
        trainer, path, layer=0, rate=0.01, split_by="sample", allow_leakage=True,
        controls=["shuffled"],
    )  # fmt: skip
    assert leaky.leaky
    assert str(verdict(leaky)) == "leaky"
    # Even if nothing were known of the split, the control task would betray it.
    hidden = dataclasses.replace(leaky, split_by="episode")
    assert hidden.cells[0].score > 0.8
    assert betrays_leak(hidden, hidden.cells[0], hidden.cells[0].controls["shuffled"])
    assert str(verdict(hidden)) == "leaky"
    honest = held_out(trainer, path, layer=0, rate=0.01, controls=["shuffled"])
    assert str(verdict(honest)) == "not decodable on new episodes"


@pytest.mark.parametrize(("noise", "word"), [(0.1, "explained by a control"), (60, "decodable")])
def test_what_an_untrained_policy_passes_on_is_not_credited_to_training(
    planted, tmp_path, trainer, noise, word
):
    path = write_planted(tmp_path / "untrained", noise=noise, seed=5)
    results = held_out(trainer, planted, layer=2, control_data=str(path), controls=["untrained"])
    assert verdict(results).word == word


def test_several_fields_of_different_widths_train_as_if_alone(planted, trainer):
    together = fitted(
        trainer, LatentDataModule(str(planted), fields=[TEXT, VELOCITY], batch_size=16), 3
    )
    assert together.spec is not None
    for place, name in enumerate((TEXT, VELOCITY)):
        alone = fitted(trainer, LatentDataModule(str(planted), fields=[name], batch_size=16), 3)
        mine, theirs = together.probe_groups[place], alone.probe_groups[0]
        assert mine.spec.cells == theirs.spec.cells
        torch.testing.assert_close(
            mine.best_weight, theirs.best_weight, rtol=TOLERANCE, atol=TOLERANCE
        )
    assert len(together.spec.cells) == 6


def test_controls_change_no_bit_of_what_is_asked_about(planted, trainer):
    with_, without = (
        fitted(trainer, LatentDataModule(str(planted), batch_size=16), 3, controls=controls)
        for controls in ("all", "none")
    )
    assert torch.equal(with_.probe_groups[0].weight, without.probe_groups[0].weight)
    assert len(with_.probe_groups) == 9
    assert len(without.probe_groups) == 1


def test_a_projected_cell_sees_the_projected_features_alone():
    cells = (Cell(expert="vlm", site="s", region="r", pool="mean", layer=0),) * 2
    spec = GroupSpec(kind="random_projection", source=0, cells=cells, width=4, projected_from=30)
    group = ProbeGroup(spec, size=3, seed=0)
    features = torch.randn(5, 2, 30, generator=torch.Generator().manual_seed(0))
    assert group.projection is not None
    projected = features @ group.projection
    expected = torch.einsum("bcr,crk->bck", projected, group.weight) + group.bias
    (said,) = said_by([group], [FeatureScaler(2, 30)], [features], best=False)
    torch.testing.assert_close(said, expected)
    assert projected.std().item() == pytest.approx(1, abs=0.3)


def test_a_random_projection_is_a_control_of_wide_fields(planted, trainer, monkeypatch):
    monkeypatch.setattr(registry, "MOST_PROJECTED", 6)
    results = held_out(trainer, planted, layer=2, controls=["random_projection"])
    control = results.cells[0].controls["random_projection"]
    assert control.score.value > results.trivial + 0.3
    assert verdict(results).word == "decodable"  # what a projection keeps, the latents hold


def test_results_with_controls_survive_files(planted, trainer, tmp_path):
    results = held_out(trainer, planted, epochs=2)
    assert ProbeResults.from_json(results.to_json()) == results
    write_csv(tmp_path / "test.csv", results)
    head = (tmp_path / "test.csv").read_text().splitlines()[0].split(",")
    assert {"selectivity_low", "time_score", "shuffled_margin_low", "verdict"} <= set(head)


def test_an_unknown_control_is_refused():
    with pytest.raises(ValueError, match=r"all, none or a list.*but got 'magic'"):
        LinearProbe(controls=["shuffled", "magic"])
