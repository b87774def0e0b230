"""From frames through a model into shards: every vector once, bit for bit, whatever happens."""

import subprocess
import sys
import threading
import time

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from datamodules.frames.frame_data_module import FrameDataModule
from jax_bridge.shards import DatasetInfo, FingerprintError, open_dataset
from jax_bridge.shards.verify import verify_dataset
from lightning_modules.capture import episode_stream
from lightning_modules.capture.activation_capture import ActivationCapture
from lightning_modules.capture.capture_point import CapturePoint
from lightning_modules.capture.captured_batch import CapturedBatch, field_specs
from lightning_modules.capture.episode_stream import EpisodeStream
from tests.datamodules.frames.conftest import write_folders
from tests.jax_bridge.episodes.episode_files import write_libero
from tests.lightning_modules.capture.conftest import sample
from tests.ranks import run_ranks

FIELD = "context.head.input.tokens"
FRAMES = [(0, 4), (1, 3), (2, 5)]


class Toy(nn.Module):
    """Gives its head the mean colour of each frame; fails where it is told to."""

    def __init__(self, fail_at=None, dtype=torch.float32):
        super().__init__()
        self.mix = nn.Parameter(torch.arange(12.0).reshape(4, 3).to(dtype))
        self.head = nn.Identity()
        self.fail_at = fail_at
        self.seen = []

    def forward(self, batch):
        self.seen += [(s.episode, s.timestep) for s in batch.samples]
        if self.fail_at in self.seen:
            raise RuntimeError("the model fails")
        colours = batch.images["base"].float().mean((1, 3, 4)).to(self.mix.dtype) @ self.mix.T
        if batch.tokens is not None:
            colours = colours[:, None].expand(-1, batch.tokens.shape[1], -1)
        return self.head(colours)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return str(write_folders(tmp_path_factory.mktemp("frames") / "episodes"))


def predict(folders, out, model=None, *, points=None, **options):
    data = FrameDataModule(folders, **{"profile": "raw", "batch_size": 2, **options})
    capture = ActivationCapture(
        model or Toy(), points or [CapturePoint(module="head")], out=str(out)
    )
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.predict(capture, datamodule=data, return_predictions=False)
    return capture, trainer


def keys(data):
    rows = data.index.select(["episode", "timestep"]).to_table().to_pylist()
    return sorted((r["episode"], r["timestep"]) for r in rows)


EVERY = sorted((e, t) for e, count in FRAMES for t in range(count))


def test_every_vector_is_written_once_with_its_words(folders, tmp_path, capsys):
    capture, _ = predict(folders, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    assert keys(data) == EVERY
    rows = data.index.select(["episode", "timestep", "instruction", "episode_length", "not_finite"])
    for row, vector in zip(rows.to_table().to_pylist(), data.read(FIELD), strict=True):
        colour = torch.tensor([40.0 * row["episode"] + 20, 10.0 * row["timestep"] + 5, 100])
        np.testing.assert_array_equal(vector, (capture.model.mix @ colour).detach())
        assert row["episode_length"] == dict(FRAMES)[row["episode"]]
        assert row["not_finite"] == 0
    assert verify_dataset(tmp_path / "out").problems == ()
    assert "captured: 12 samples into" in capsys.readouterr().out


def test_the_data_set_says_how_it_was_made(folders, tmp_path):
    predict(folders, tmp_path / "out", profile="upstream")
    info = open_dataset(tmp_path / "out").info
    assert info.capture["profile"]["name"] == "upstream"
    assert info.capture["points"][0]["module"] == "head"
    assert info.environment["source"]["kind"] == "images"
    assert info.model["class"].endswith("Toy")
    assert len(info.model["params_digest"]) == 64


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_a_capture_that_failed_goes_on_where_it_stopped(folders, tmp_path, episode):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="the model fails"):
        predict(folders, out, Toy(fail_at=(episode, 2)))
    again = Toy()
    predict(folders, out, again)
    data = open_dataset(out)
    assert keys(data) == EVERY
    whole = tmp_path / "whole"
    predict(folders, whole)
    np.testing.assert_array_equal(data.read(FIELD), open_dataset(whole).read(FIELD))
    assert data.fingerprint == open_dataset(whole).fingerprint
    if episode:
        assert not {(0, t) for t in range(4)} & set(again.seen)


@pytest.mark.filterwarnings("ignore:Total length of `FrameLoader` across ranks is zero")
def test_a_finished_capture_runs_the_model_no_more(folders, tmp_path, capsys):
    predict(folders, tmp_path / "out")
    model = Toy()
    predict(folders, tmp_path / "out", model)
    assert model.seen == []
    assert "3 episodes were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "mobile_vla"}, r"capture.profile.*raw there"),
        ({"window": 2}, "capture.window is 1 there, 2 now"),
    ],
)
def test_other_settings_are_not_mixed_into_one_data_set(folders, tmp_path, options, message):
    predict(folders, tmp_path / "out")
    with pytest.raises(FingerprintError, match=message):
        predict(folders, tmp_path / "out", **options)


def test_another_model_is_not_mixed_into_one_data_set(folders, tmp_path):
    predict(folders, tmp_path / "out")
    other = Toy()
    other.mix.data += 1
    with pytest.raises(FingerprintError, match=r"model.params_digest is"):
        predict(folders, tmp_path / "out", other)
    assert other.seen == []


def test_bfloat16_stays_bfloat16(folders, tmp_path):
    model = Toy(dtype=torch.bfloat16)
    predict(folders, tmp_path / "out", model)
    data = open_dataset(tmp_path / "out")
    assert data.fields[FIELD].dtype == "bfloat16"
    assert str(data.read(FIELD).dtype) == "bfloat16"


def test_tokens_of_different_lengths_need_a_pool(folders, tokenizer, tmp_path):
    with pytest.raises(
        ValueError, match=r"`pool` must be mean, last or max .*\(7, 4\) here, \(10, 4\) there"
    ):
        predict(folders, tmp_path / "out", tokenizer=tokenizer)
    point = CapturePoint(module="head", pool="mean")
    predict(folders, tmp_path / "pooled", tokenizer=tokenizer, points=[point])
    assert open_dataset(tmp_path / "pooled").read(point.field).shape == (12, 4)


class Infinite(Toy):
    def forward(self, batch):
        value = super().forward(batch)
        bad = torch.where(batch.images["base"][:, 0, 1, 0, 0] == 15, torch.nan, 0.0)
        return self.head(
            value + bad[:, None, None].expand(value.shape)
            if value.ndim == 3
            else value + bad[:, None]
        )


def test_nan_is_counted_and_named(folders, tmp_path, capsys):
    point = CapturePoint(module="head", call=-1)
    predict(folders, tmp_path / "out", Infinite(), points=[point])
    data = open_dataset(tmp_path / "out")
    rows = data.index.select(["timestep", "not_finite"]).to_table().to_pylist()
    assert {r["timestep"] for r in rows if r["not_finite"]} == {1}
    said = capsys.readouterr().out
    assert "numbers in 3 samples, as images-t000-e0000-s0001" in said


def test_several_writers_share_one_folder(tmp_path):
    """Two streams take turns, as two processes would."""

    streams = [EpisodeStream(str(tmp_path / "out"), info_of) for _ in range(2)]
    for episode in range(4):
        values = {FIELD: torch.full((2, 3), float(episode))}
        samples = [sample(t, last=t == 1, episode=episode) for t in range(2)]
        streams[episode % 2].put(CapturedBatch(values=values, samples=samples))
    for stream in streams:
        stream.close()
    data = open_dataset(tmp_path / "out")
    assert keys(data) == [(e, t) for e in range(4) for t in range(2)]
    assert verify_dataset(tmp_path / "out").problems == ()


def test_an_error_of_the_disk_reaches_the_model(tmp_path):
    (tmp_path / "out").write_text("a file")
    values = {FIELD: torch.zeros(1, 3)}
    stream = EpisodeStream(str(tmp_path / "out"), info_of)
    batch = CapturedBatch(values=values, samples=[sample(0, last=True)])
    stream.put(batch)
    with pytest.raises(OSError, match="out"):
        stream.close()


def test_a_disk_that_refuses_at_the_very_end_is_an_error_too(tmp_path, monkeypatch):
    def full(self):
        raise OSError("the disk is full")

    monkeypatch.setattr(episode_stream.EpisodeWriter, "close", full)
    stream = EpisodeStream(str(tmp_path / "out"), info_of)
    stream.put(CapturedBatch(values={FIELD: torch.zeros(1, 3)}, samples=[sample(0, last=True)]))
    found = []

    def close():
        try:
            stream.close()
        except OSError as error:
            found.append(str(error))

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(20)  # it must not wait for a thread that waits for it
    assert found == ["the disk is full"]


def info_of(fields):
    return DatasetInfo(fields=fields, capture={}, model={}, environment={}, seed=0)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((1, 1, 8), ("frame", "token", "width")), ((4, 8), ("token", "width")), ((8,), ("width",)),
     ((2, 5, 8), ("frame", "token", "width"))],
)  # fmt: skip
def test_every_shape_that_an_action_head_receives_has_words(shape, axes):
    (spec,) = field_specs({"context.act_head.input.tokens": np.zeros((3, *shape))}).values()
    assert (spec.shape, spec.axes) == (shape, axes)


def test_what_could_not_be_read_is_said(tmp_path, capsys):
    (tmp_path / "demos").mkdir()
    write_libero(tmp_path / "demos" / "a.hdf5", lengths=(2,))
    (tmp_path / "demos" / "b.hdf5").write_bytes(b"cut")
    predict(str(tmp_path / "demos"), tmp_path / "out")
    assert f"1 could not be read, as {tmp_path}/demos/b.hdf5: " in capsys.readouterr().out


KILLED = """
import sys, time
from tests.lightning_modules.capture import test_capture_to_shards as here

forward = here.Toy.forward

def slowly(self, batch):
    time.sleep(0.3)
    return forward(self, batch)

here.Toy.forward = slowly
here.predict(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_a_capture_that_was_killed_goes_on_without_doubles(folders, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, folders, str(out)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(b"members" in path.read_bytes() for path in (out / "shards").glob(".part-*.jsonl")):
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    again = Toy()
    predict(folders, out, again)
    assert 0 < len(again.seen) < len(EVERY)
    assert keys(open_dataset(out)) == EVERY
    assert verify_dataset(out).problems == ()


def test_more_axes_than_words_are_refused():
    with pytest.raises(
        ValueError, match=r"at most 4 axes behind the batch, but a has shape \(1, 1, 1, 1, 1\)"
    ):
        field_specs({"a": np.zeros((2, 1, 1, 1, 1, 1))})


def test_the_writer_wants_frames_and_a_folder(folders, tmp_path):
    capture = ActivationCapture(Toy(), [CapturePoint(module="head")], out=str(tmp_path / "out"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(ValueError, match="`data` must be a FrameDataModule, but got NoneType"):
        trainer.predict(capture, dataloaders=[1])
    with pytest.raises(ValueError, match="`out` must be a folder, but got s3://bucket/data"):
        ActivationCapture(
            Toy(), [CapturePoint(module="head")], out="s3://bucket/data"
        ).configure_callbacks()


def predict_on_rank(rank, folders, out):
    data = FrameDataModule(folders, profile="raw", batch_size=2)
    capture = ActivationCapture(Toy(), [CapturePoint(module="head")], out=out)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.predict(capture, datamodule=data, return_predictions=False)
    return capture.model.seen


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folders, tmp_path):
    seen = run_ranks(predict_on_rank, 2, tmp_path / "ranks", folders, str(tmp_path / "out"))
    assert sorted(seen[0] + seen[1]) == EVERY
    predict(folders, tmp_path / "one")
    two, one = open_dataset(tmp_path / "out"), open_dataset(tmp_path / "one")
    assert keys(two) == EVERY
    np.testing.assert_array_equal(two.read(FIELD), one.read(FIELD))
