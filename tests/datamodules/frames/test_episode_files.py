"""Frames of HDF5 episodes."""

import fcntl

import h5py
import numpy as np
import pytest

from datamodules.frames.frame_data_module import FrameDataModule
from tests.jax_bridge.episodes.episode_files import picture, write_calvin, write_libero


def rows(path, **options):
    data = FrameDataModule(str(path), profile="raw", batch_size=3, **options)
    data.setup()
    return data, list(data.predict_dataloader())


def test_libero_frames_come_upright_with_their_words(tmp_path):
    write_libero(tmp_path / "demo.hdf5")
    data, batches = rows(tmp_path)
    samples = [s for batch in batches for s in batch.samples]
    assert [(s.episode, s.timestep) for s in samples] == [*((0, t) for t in range(5)),
                                                          *((1, t) for t in range(3))]  # fmt: skip
    assert {s.instruction for s in samples} == {"put the red cube in the bowl"}
    found = batches[1].images["base"][0, 0].permute(1, 2, 0)
    np.testing.assert_array_equal(found, picture(3)[0])
    assert data.describe()["source"]["kind"] == "episodes"


def test_a_truncated_file_is_passed_over_and_named(tmp_path):
    write_libero(tmp_path / "a.hdf5", lengths=(2,))
    write_libero(tmp_path / "b.hdf5")
    content = (tmp_path / "b.hdf5").read_bytes()
    (tmp_path / "b.hdf5").write_bytes(content[: len(content) // 2])
    data, batches = rows(tmp_path)
    assert sum(len(b.samples) for b in batches) == 2
    assert list(data.source.skipped) == [str(tmp_path / "b.hdf5")]
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(ValueError, match=r"must hold episodes that can be read, but: .*b.hdf5"):
        rows(tmp_path)


def test_files_without_words_need_an_instruction(tmp_path):
    path = write_libero(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        del file["data"].attrs["problem_info"]
    with pytest.raises(
        ValueError, match=r"`instruction` must be given .* but got None for .*demo_0"
    ):
        rows(path)
    _, batches = rows(path, instruction="go")
    assert batches[0].samples[0].instruction == "go"


def test_a_pattern_names_files(tmp_path):
    write_libero(tmp_path / "a.hdf5", lengths=(2,))
    write_libero(tmp_path / "b.hdf5", lengths=(4,))
    _, batches = rows(tmp_path / "b*.hdf5")
    assert sum(len(b.samples) for b in batches) == 4


def test_a_file_that_somebody_writes_is_passed_over_and_named(tmp_path):
    write_libero(tmp_path / "a.hdf5", lengths=(2,))
    write_libero(tmp_path / "b.hdf5")
    with (tmp_path / "b.hdf5").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a program does that writes
        data, _ = rows(tmp_path)
    assert list(data.source.skipped) == [str(tmp_path / "b.hdf5")]


def test_calvins_folders_are_found(tmp_path):
    write_calvin(tmp_path / "training", annotated=True)
    data, batches = rows(tmp_path / "training")
    assert data.kind == "auto"
    assert sum(len(b.samples) for b in batches) == sum(
        len(e.timesteps) for e in data.source.episodes
    )
    assert all(s.instruction for b in batches for s in b.samples)
