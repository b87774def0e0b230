"""Permutation tests inside `test`, on planted data."""

import numpy as np
import pytest

from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.results import ProbeResults
from lightning_modules.run_folder import csv_rows, results_of
from tests.planted import PLANTED_LAYER, write_planted

FEW = 199


def judged(trainer, data, epochs=15, **options):
    probe = LinearProbe(**{"controls": "none", "permutations": FEW, **options})
    trainer(epochs).fit(probe, datamodule=data)
    trainer().test(probe, datamodule=data, verbose=False)
    return results_of(probe, "test", data.clusters), probe


@pytest.mark.parametrize(
    ("objective", "kind"), [("auto", "held_out"), ("ridge", "refit"), ("lda", "refit")]
)
def test_p_values_tell_the_planted_layer_from_the_others_and_how_they_were_made(
    planted, trainer, objective, kind
):
    data = LatentDataModule(str(planted), batch_size=16)
    results, _ = judged(trainer, data, objective=objective)
    assert (results.permutation, results.permutations) == (kind, FEW)
    for cell in results.cells:
        if cell.cell.layer == PLANTED_LAYER:
            assert cell.p_value == cell.p_corrected == 1 / (FEW + 1)
            assert cell.null_score == pytest.approx(0.25, abs=0.1)
        else:
            assert cell.p_corrected > max(cell.p_value - 1e-9, 0.05)
    assert ProbeResults.from_json(results.to_json()) == results
    assert csv_rows(results)[0]["p_value"] == results.cells[0].p_value


def test_the_refitted_probe_of_the_true_labels_is_the_probe_that_was_fitted(planted, trainer):
    data = LatentDataModule(str(planted), expert="action", batch_size=16)
    results, probe = judged(trainer, data, objective="ridge")
    assert probe.permuted is not None
    np.testing.assert_allclose(
        probe.permuted.observed, [cell.score for cell in results.cells], atol=1e-6
    )
    small, again = judged(trainer, data, objective="ridge", memory_budget=30_000)
    assert again.permuted is not None
    np.testing.assert_allclose(again.permuted.null_mean, probe.permuted.null_mean, atol=1e-9)
    assert [c.p_value for c in small.cells] == [c.p_value for c in results.cells]


def test_labels_that_change_with_time_are_exchanged_on_held_out_units(planted, trainer):
    data = LatentDataModule(str(planted), target="robot_state", batch_size=16)
    results, _ = judged(trainer, data, objective="ridge")
    assert results.permutation == "held_out"
    assert min(cell.p_corrected for cell in results.cells) > 0.01


def test_a_ridge_of_instructions_is_refitted_and_the_planted_layer_found(planted, trainer):
    data = LatentDataModule(str(planted), target="instruction", batch_size=16)
    results, _ = judged(trainer, data, objective="ridge")
    assert results.permutation == "refit"
    p = {cell.cell.layer: cell.p_corrected for cell in results.cells}
    assert p.pop(PLANTED_LAYER) == 1 / (FEW + 1)
    assert min(p.values()) > 0.05


def test_refitting_does_not_fall_for_a_split_that_leaks(tmp_path, trainer):
    # Layer 0 knows the episode, so a split by sample lets any labels be learnt by heart. Held-out
    # accuracy is high; with permuted labels it is as high, and the p-value says so.
    path = write_planted(tmp_path / "data", fingerprints=True, samples=8)
    data = LatentDataModule(
        str(path), layer=0, split_by="sample", allow_leakage=True, batch_size=64
    )
    results, _ = judged(trainer, data, objective="ridge")
    cell = results.cells[0]
    assert cell.score > results.trivial + 0.15
    assert cell.null_score == pytest.approx(cell.score, abs=0.15)
    assert cell.p_value > 0.05


def test_without_permutations_there_are_no_p_values(planted, trainer):
    data = LatentDataModule(str(planted), layer=0, batch_size=16)
    results, _ = judged(trainer, data, epochs=1, permutations=0)
    assert results.permutation == ""
    assert results.cells[0].p_value is None
