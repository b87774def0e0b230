"""Batches of a data set at an address are those of the folder, read here or by workers."""

import pytest
import torch

from datamodules.latents import LatentDataModule


def batches(data):
    return [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_an_address_are_those_of_the_folder(
    planted, file_server, tmp_path, monkeypatch, num_workers
):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    server = file_server(planted)
    words = {"expert": "action", "layer": [2, 5], "batch_size": 16, "target": "task_id"}
    here = LatentDataModule(str(planted), **words)
    there = LatentDataModule(server.url, num_workers=num_workers, **words)
    pairs = list(zip(batches(here), batches(there), strict=True))
    for one, other in pairs:
        assert one.rows.tolist() == other.rows.tolist()
        assert torch.equal(one.features[0], other.features[0])
        assert torch.equal(one.targets, other.targets)
    assert there.describe() == {**here.describe(), "path": server.url}
    server.reset()
    batches(there)
    assert server.bytes_sent == 0
    assert {path.name for path in (tmp_path / "cache").iterdir()} >= {"remote"}


def test_the_next_batches_of_an_address_are_on_their_way(
    planted, file_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    data = LatentDataModule(file_server(planted).url, batch_size=16)
    loader = data.train_dataloader()
    told = []
    real = type(data.dataset).read_ahead
    monkeypatch.setattr(
        type(data.dataset),
        "read_ahead",
        lambda self, rows: (told.append(rows.tolist()), real(self, rows))[1],
    )
    rows = [batch.rows.tolist() for batch in loader]
    assert told == rows  # before anything was read, the first ones change nothing
