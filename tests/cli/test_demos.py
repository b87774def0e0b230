"""`vla-lens demos` as its users call it."""

import numpy as np
import pytest

from cli.main import main
from jax_bridge.episodes.reader import Hdf5Episode
from jax_bridge.shards import open_dataset
from jax_bridge.shards.sample_choice import SampleChoice
from tests.jax_bridge.episodes.episode_files import write_aloha, write_libero


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    good = write_libero(folder / "good.hdf5")
    (folder / "cut.hdf5").write_bytes(good.read_bytes()[:4000])
    return folder


def test_a_folder_becomes_a_data_set_and_what_is_broken_is_said(files, tmp_path, capsys):
    args = ["demos", "--demos", str(files), "--horizon", "4", "--out", str(tmp_path / "d")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert f"passed over: {files}/cut.hdf5: it is truncated" in out
    assert "2 episodes (0 were there already), 8 samples, 1 passed over, 0 errors" in out
    assert open_dataset(tmp_path / "d").read_robot("actions").shape == (8, 4, 7)
    assert main(args) == 0
    assert "0 episodes (2 were there already)" in capsys.readouterr().out


def test_cameras_turn_and_size_are_chosen(files, tmp_path):
    args = ["demos", "--demos", str(files), "--out", str(tmp_path / "d"), "--images", "png"]
    assert main([*args, "--cameras", "left_wrist", "--turn", "none", "--image_size", "8"]) == 0
    dataset = open_dataset(tmp_path / "d")
    (sample,) = SampleChoice(images=("left_wrist",)).read(dataset, np.array([0]))
    image = sample["images"]["left_wrist"]
    assert image.shape == (8, 8, 3)
    assert image[-1, -1].tolist() == [40, 200, 0]  # what stands there in an upright one is first
    with pytest.raises(ValueError, match=r"must name what .* holds, but got base"):
        SampleChoice(images=("base",)).check(dataset)


def test_ctrl_c_keeps_whole_episodes_and_the_same_command_goes_on(
    files, tmp_path, capsys, monkeypatch
):
    args = ["demos", "--demos", str(files), "--out", str(tmp_path / "d")]
    frames = Hdf5Episode.frames

    def interrupted(self, camera, steps):
        if self.info.place == "data/demo_1":
            raise KeyboardInterrupt
        return frames(self, camera, steps)

    monkeypatch.setattr(Hdf5Episode, "frames", interrupted)
    assert main(args) == 130
    assert f"finished episodes are kept in {tmp_path}/d" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(args) == 0
    assert "1 episodes (1 were there already), 3 samples" in capsys.readouterr().out


def test_files_can_be_listed_without_writing(files, tmp_path, capsys):
    assert main(["demos", "--demos", str(files), "--list"]) == 0
    out = capsys.readouterr().out
    assert "base 16x16, left_wrist 16x16" in out
    assert "2 episodes, 8 steps in 2 files; 1 passed over" in out


def test_bad_input_is_one_sentence(files, tmp_path, capsys):
    write_aloha(tmp_path / "b.hdf5")
    (tmp_path / "none").mkdir()
    out = ["--out", str(tmp_path / "d")]
    for args, message in (
        (["--demos", str(tmp_path / "none"), *out], "must hold episode files"),
        (["--demos", str(tmp_path / "nowhere"), *out], "that exist, but got"),
        (["--demos", str(files)], "`--out` must name the folder"),
        (["--demos", str(files), "--layout", "rlds", *out], "`layout` must be one of auto"),
        (["--demos", str(files / "cut.hdf5"), *out], "but all were passed over"),
        (["--demos", str(tmp_path / "b.hdf5"), *out], "Add --instruction TEXT"),
        (["--demos", str(files), "--horizon", "0", *out], "`horizon` must be positive"),
    ):
        assert main(["demos", *args]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert message in error
