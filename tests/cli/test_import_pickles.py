"""`vla-lens import-pickles`: from a folder of pickles to a data set, with what was left out."""

import pickle

import numpy as np
import pytest

from cli.main import main
from jax_bridge.shards import open_dataset


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    step = {"vlm_layer_output": {"hidden_states": np.ones((2, 1, 7, 4), np.float32)}, "x": 1}
    episodes = {"episode_0": {"rollout_steps": {"step_0": step}, "success": True}}
    (folder / "task_3_a_cup.pkl").write_bytes(pickle.dumps({"episodes": episodes}))
    return folder


def test_a_folder_becomes_a_data_set(old, tmp_path, capsys):
    out = tmp_path / "data"
    arguments = ["import-pickles", str(old), "--out", str(out), "--vlm_regions", "text:7"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"1 episodes, 1 samples of 1 files -> {out}" in said
    assert "left out, since not known or not wanted: x (1)" in said
    assert open_dataset(out).read("vlm.hidden_states.text.tokens").shape == (1, 2, 7, 4)
    (old / "task_4_b.pkl").write_bytes(pickle.dumps(print))
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "1 episodes were there already" in said.out
    assert "refused: task_4_b.pkl: it names builtins.print" in said.err


def test_what_cannot_be_cut_is_one_sentence(old, tmp_path, capsys):
    assert main(["import-pickles", str(old), "--out", str(tmp_path / "data")]) == 2
    said = capsys.readouterr().err
    assert "`vlm_regions` must be given where the length says not enough: 7 tokens" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "data").exists()
