import dataclasses

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from datamodules.latents import LatentDataModule
from datamodules.target_spec import TargetSpec
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.nearest_row import nearest_names
from lightning_modules.prediction_table import PredictionTable
from lightning_modules.run_folder import results_of
from lightning_modules.saved_probe import FILE, ProbeFile, load_probe, save_probe
from tests.planted import PLANTED_LAYER

FIELDS = ["vlm.hidden_states.text.mean", "action.hidden_states.action.mean"]


def fitted(trainer, planted, epochs=12, **options):
    data = LatentDataModule(str(planted), batch_size=16, **options)
    probe = LinearProbe(controls=["shuffled"])
    trainer(epochs).fit(probe, datamodule=data)
    return probe, data


def test_a_saved_probe_gives_the_same_outputs_and_names_for_every_field(planted, trainer, tmp_path):
    probe, data = fitted(trainer, planted, fields=FIELDS)
    save_probe(probe, tmp_path / FILE)
    saved = load_probe(tmp_path / FILE)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        expected = probe(batch.features)
    assert tuple(cell for field in saved.fields for cell in field.cells) == data.cells
    pairs = zip(saved.fields, batch.features, strict=False)
    assert torch.equal(torch.cat([f.outputs(x) for f, x in pairs], dim=1), expected)
    assert len(saved.fields) == len(FIELDS)
    answers = saved.answers(saved.fields[0].outputs(batch.features[0]))
    place = [cell.layer for cell in saved.fields[0].cells].index(PLANTED_LAYER)
    assert (answers[:, place] == batch.targets).float().mean() > 0.95
    assert saved.names() == data.target_spec.classes
    assert saved.target == data.target_spec
    assert saved.fingerprint == data.fingerprint


def test_a_probe_of_instructions_names_the_nearest_one(planted, trainer, tmp_path):
    probe, data = fitted(trainer, planted, target="instruction", layer=PLANTED_LAYER)
    save_probe(probe, tmp_path / FILE)
    saved = load_probe(tmp_path / FILE)
    batch = next(iter(data.test_dataloader()))
    answers = saved.answers(saved.fields[0].outputs(batch.features[0]))[:, 0]
    table = torch.tensor(saved.target.table)
    assert (table[answers] == batch.targets).all(1).float().mean() > 0.95
    assert "put the red cube in the white bowl" in saved.names()
    # The digest of what the encoder was estimated from travels along.
    assert saved.target.basis == data.target_spec.basis != ""


def test_vectors_of_another_encoder_are_refused_and_both_are_named(planted, trainer):
    probe, _ = fitted(trainer, planted, epochs=1, target="instruction", layer=0)
    assert probe.spec is not None
    target = dataclasses.replace(probe.spec.target, encoder="t5", encoder_digest="ab" * 32)
    with pytest.raises(ValueError, match="by tfidf, but got files abababababab"):
        probe.spec.check_data(dataclasses.replace(probe.spec, target=target))


def test_predictions_name_the_nearest_instruction(planted, trainer, tmp_path):
    probe, data = fitted(trainer, planted, target="instruction", layer=PLANTED_LAYER)
    trainer(callbacks=[PredictionTable()]).predict(probe, datamodule=data, return_predictions=False)
    frame = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert set(frame["target"]) == set(data.target_spec.table_names)
    right = [a == b for a, b in zip(frame["prediction"], frame["target"], strict=True)]
    assert sum(right) / len(right) > 0.95


def test_of_instructions_with_one_embedding_the_true_one_is_named():
    target = TargetSpec(
        name="instruction", objective="cosine", size=2, trivial=(0.0, 0.0),
        table=((1.0, 0.0), (1.0, 0.0), (0.0, 1.0)), table_names=("milk", "soup", "tea"),
    )  # fmt: skip
    said = torch.tensor([[[2.0, 0.1]], [[2.0, 0.1]], [[0.0, 1.0]]])
    named = nearest_names(said, ["soup", "tea", "unknown"], target)
    assert named == [["soup"], ["milk"], ["tea"]]


def test_the_results_know_retrieval_and_the_phases_of_the_episode(planted, trainer):
    probe, data = fitted(trainer, planted, target="instruction", layer=PLANTED_LAYER)
    trainer().test(probe, datamodule=data, verbose=False)
    metrics = results_of(probe, "test", data.clusters).cells[0].metrics
    assert metrics["retrieval@1"].value > 0.95
    assert metrics["retrieval@1"].chance == 1 / len(data.target_spec.table)
    assert metrics["cosine_centred"].low > 0.9
    assert {"phase_early", "phase_middle", "phase_late"} <= set(metrics)


def test_a_fit_leaves_its_probe_in_the_run_folder(planted, trainer, tmp_path):
    data = LatentDataModule(str(planted), layer=0)
    t = trainer(1, callbacks=[ProbeFile()], logger=True, log_every_n_steps=1)
    t.fit(LinearProbe(controls="none"), datamodule=data)
    assert load_probe(tmp_path / t.log_dir / FILE).fields[0].cells == data.cells


def test_what_is_no_probe_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x.safetensors is not there"):
        load_probe(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"probe of version 1, but got .* which is None"):
        load_probe(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as one"):
        load_probe(tmp_path / "text")
