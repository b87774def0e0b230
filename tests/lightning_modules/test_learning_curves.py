import csv

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.latents import LatentDataModule
from lightning_modules.figures.curves import FILE, draw_curves, read_curves
from lightning_modules.learning_curves import LearningCurves
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.tensorboard_extras import TensorBoardExtras, chosen_cell, main_coordinates
from tests.planted import PLANTED_LAYER


@pytest.fixture
def logger(tmp_path):
    return TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)


def test_every_cell_and_its_control_leave_a_curve_that_goes_on_when_resumed(
    planted, trainer, tmp_path, logger
):
    def fit(epochs: int, **options) -> None:
        t = trainer(epochs, callbacks=[LearningCurves()], logger=logger, log_every_n_steps=1)
        data = LatentDataModule(str(planted), batch_size=32)
        t.fit(LinearProbe(controls=["shuffled"]), datamodule=data, **options)
        t.save_checkpoint(tmp_path / f"{epochs}.ckpt")

    fit(2)
    fit(4, ckpt_path=tmp_path / "2.ckpt")
    rows = read_curves(tmp_path / FILE)
    assert sorted({row["epoch"] for row in rows}) == [0, 1, 2, 3]
    assert len(rows) == 4 * 2 * 3  # epochs x (main, shuffled) x layers
    place = f"layer{PLANTED_LAYER:02d}"
    last = {r["kind"]: r["loss"] for r in rows if r["epoch"] == 3 and place in r["cell"]}
    assert last["main"] < last["shuffled"]
    assert all(row["low"] < row["loss"] < row["high"] for row in rows)
    figure = draw_curves(rows, rows[0]["cell"], 3)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "middle 80 % of all cells", "chosen cell", "same cell, targets exchanged", "kept weights"
    ]  # fmt: skip


def test_tensorboard_gets_the_settings_with_the_result_and_the_chosen_latents(
    planted, trainer, tmp_path, logger
):
    data = LatentDataModule(str(planted), batch_size=8)
    probe = LinearProbe(controls="none")
    trainer(8).fit(probe, datamodule=data)
    assert chosen_cell(probe) == (0, 1)  # the planted layer is the second one
    t = trainer(callbacks=[TensorBoardExtras()], logger=logger)
    t.test(probe, datamodule=data, verbose=False)
    with next(tmp_path.rglob("metadata.tsv")).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == len(data.rows["test"])
    assert {row["target"] for row in rows} <= set(data.target_spec.classes)
    points = next(tmp_path.rglob("tensors.tsv")).read_text().splitlines()
    assert len(points) == len(rows)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Scalars("test/chosen_accuracy")[0].value > 0.95
    settings = events.PluginTagToContent("hparams")
    assert any(b"task_id" in content for content in settings.values())


@pytest.mark.parametrize("points", [200, 60])
def test_points_are_turned_so_that_few_numbers_keep_most(points):
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(points, 3, generator=generator) @ torch.randn(3, 80, generator=generator)
    found = main_coordinates(flat + 100)
    assert found.shape == (points, 50)
    distances = torch.cdist(flat, flat)
    torch.testing.assert_close(torch.cdist(found, found), distances, atol=0.05, rtol=1e-3)


def test_points_stop_at_the_limit(planted, trainer, tmp_path, logger, monkeypatch):
    monkeypatch.setattr("lightning_modules.tensorboard_extras.MOST_POINTS", 10)
    data = LatentDataModule(str(planted), batch_size=8, layer=0)
    t = trainer(callbacks=[TensorBoardExtras()], logger=logger)
    probe = LinearProbe(controls="none")
    trainer(1).fit(probe, datamodule=data)
    t.test(probe, datamodule=data, verbose=False)
    assert len(next(tmp_path.rglob("tensors.tsv")).read_text().splitlines()) == 10
