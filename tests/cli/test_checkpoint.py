"""`vla-lens checkpoint`: what is printed, what is written, and one sentence where it fails."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cli.main import main


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"act_head.w": np.ones((2, 3), np.float32), "action_token": np.ones(4)}, path)
    return path


def test_inspect_prints_a_page_or_json_and_writes_both(file, tmp_path, capsys):
    assert main(["checkpoint", "inspect", str(file), "--out", str(tmp_path / "out")]) == 0
    page = capsys.readouterr().out
    assert "| action head | 1 | 6 | 24 bytes |" in page
    assert (tmp_path / "out" / "inspect.md").read_text() == page
    assert main(["checkpoint", "inspect", str(file), "--format", "json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry == json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert entry["parts"]["action head"] == {"tensors": 1, "parameters": 6, "bytes": 24}


def test_inspect_against_another_says_what_moved_and_draws_it(file, tmp_path, capsys):
    after = tmp_path / "after.safetensors"
    save_file({"act_head.w": np.full((2, 3), 2, np.float32), "action_token": np.ones(4)}, after)
    args = ["checkpoint", "inspect", str(after), "--against", str(file)]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    assert "| `act_head.w` | action head | 1 | 1 |" in capsys.readouterr().out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["changes.json", "changes.md", "changes.png"]


def test_a_pickle_that_names_more_needs_trust(tmp_path, capsys):
    torch.save({"w": torch.ones(1), "when": np.datetime64("2026-01-01")}, tmp_path / "a.pt")
    assert main(["checkpoint", "inspect", str(tmp_path / "a.pt")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "names numpy" in error
    assert main(["checkpoint", "inspect", str(tmp_path / "a.pt"), "--trust"]) == 0
    assert "The pickle names what it should not (none of it was run)" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main(["checkpoint", "inspect", str(tmp_path / "nowhere")]) == 2
    assert "nowhere', which does not exist." in capsys.readouterr().err
    assert main(["checkpoint", "inspect", str(tmp_path), "--out", __file__]) == 2
    assert "`--out` must be a folder, but" in capsys.readouterr().err


def test_download_says_what_came_and_verify_only_what_is_spoilt(file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["checkpoint", "download", file.as_uri(), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "(none to compare)" in said
    assert "1 files fetched, 0 were here already" in said
    assert (out / file.name).read_bytes() == file.read_bytes()
    assert main(["checkpoint", "download", "--out", str(out), "--verify-only"]) == 0
    (out / file.name).write_bytes(b"")
    assert main(["checkpoint", "download", "--out", str(out), "--verify-only"]) == 1
    assert "model.safetensors has 0 bytes instead of" in capsys.readouterr().out


def test_download_of_the_wrong_file_is_one_sentence(file, tmp_path, capsys):
    args = ["checkpoint", "download", file.as_uri(), "--out", str(tmp_path / "out")]
    assert main([*args, "--sha256", "0" * 64]) == 2
    assert "came as" in capsys.readouterr().err
    assert not (tmp_path / "out" / file.name).exists()
    assert main(["checkpoint", "download", "--out", str(tmp_path / "out")]) == 2
    assert "`ADDRESS` must be given" in capsys.readouterr().err


def test_convert_refuses_what_is_no_pi0_in_one_sentence(file, tmp_path, capsys):
    assert main(["checkpoint", "convert", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "has no tensor below paligemma_with_expert" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
