"""`vla-lens collect` as its users call it."""

import errno
import itertools
import json
import re

import pytest
import yaml

from cli.collect import main
from cli.main import main as front
from jax_bridge.shards import open_dataset

SMALL = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "2", "--max-steps", "11"),
    *("--tasks", "0:2", "--episodes", "0:2", "--drive", "demonstrator", "--stride", "5"),
    *("--env.image_size", "32"),
]


def test_collects_what_was_asked_for_and_resumes(tmp_path, capsys):
    out = str(tmp_path / "data")
    assert main(["collect", *SMALL, "--out", out]) == 0
    assert "4 episodes (0 were there already), 12 samples" in capsys.readouterr().out
    dataset = open_dataset(out)
    assert dataset.index.num_rows == 12
    assert set(dataset.index["timestep"].to_pylist()) == {0, 5, 10}
    assert dataset.read("action.hidden_states.action.mean").shape == (12, 4, 2, 64)
    assert dataset.info.model["preset"] == "pi05_micro"
    assert main(["collect", *SMALL, "--out", out]) == 0
    assert "0 episodes (4 were there already), 0 samples" in capsys.readouterr().out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set that was written at once."""
    out = tmp_path_factory.mktemp("whole") / "data"
    assert main([*SMALL, "--out", str(out)]) == 0
    return out


def test_equal_commands_give_equal_bytes(whole, tmp_path):
    assert main([*SMALL, "--out", str(tmp_path / "again")]) == 0
    first, second = (sorted((p / "shards").glob("*.tar")) for p in (whole, tmp_path / "again"))
    assert [p.name for p in first] == [p.name for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_ctrl_c_keeps_whole_episodes_and_the_same_command_goes_on(
    whole, tmp_path, capsys, monkeypatch
):
    from jax_bridge.environments.tabletop import Tabletop

    steps = itertools.count()
    step = Tabletop.step

    def interrupted(self, action):
        if next(steps) == 27:  # in the third episode of 11 steps
            raise KeyboardInterrupt
        return step(self, action)

    out = tmp_path / "data"
    monkeypatch.setattr(Tabletop, "step", interrupted)
    assert front(["collect", *SMALL, "--out", str(out)]) == 130
    assert f"interrupted: finished episodes are kept in {out}" in capsys.readouterr().err
    assert len(open_dataset(out)) == 6
    assert front(["collect", *SMALL, "--out", str(out)]) == 0
    assert "2 episodes (2 were there already)" in capsys.readouterr().out
    one, other = open_dataset(whole), open_dataset(out)
    assert one.metadata.drop(["shard"]).equals(other.metadata.drop(["shard"]))
    for field in one.fields:
        assert one.read(field).tobytes() == other.read(field).tobytes()
    for name in ("state", "actions", "executed"):
        assert one.read_robot(name).tobytes() == other.read_robot(name).tobytes()


def test_a_policy_that_drives_writes_its_calls(tmp_path):
    args = [*SMALL, "--drive", "policy", "--stride", "10", "--replan", "5", "--images", "none"]
    assert main([*args, "--tasks", "0", "--episodes", "0", "--out", str(tmp_path / "d")]) == 0
    assert open_dataset(str(tmp_path / "d")).index["call"].to_pylist() == [0, 2]


def test_a_printed_configuration_reads_back(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*SMALL, "--env", "tabletop", "--out", "x", "--print_config"])
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    table = {"image_size": 32, "hand": "start", "view": "both"}
    assert config["env"] == {"name": "tabletop", **table}
    assert config["policy"]["preset"] == "pi05_micro"
    (tmp_path / "c.yaml").write_text(text)
    out = str(tmp_path / "data")
    assert main(["--config", str(tmp_path / "c.yaml"), "--tasks", "1", "--out", out]) == 0
    assert set(open_dataset(out).index["task_id"].to_pylist()) == {1}


def test_a_capture_file_names_what_is_captured(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"preset": "pooled", "layers": [1, 3]}))
    out = str(tmp_path / "data")
    args = [*SMALL, "--tasks", "0", "--episodes", "0"]
    assert main([*args, "--capture", str(tmp_path / "spec.json"), "--out", out]) == 0
    assert open_dataset(out).fields["vlm.hidden_states.text.mean"].layers == (1, 3)


def test_what_a_preset_names_and_the_model_has_not_is_said(tmp_path, capsys):
    args = [*SMALL, "--tasks", "0", "--episodes", "0"]
    assert main([*args, "--out", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "left out, since this model has no such tokens: action.hidden_states.state.mean" in out


def test_estimate_prints_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--estimate"]) == 0
    out = capsys.readouterr().out
    assert "episodes  4" in out
    assert "samples   at most 12" in out
    assert re.search(r"time      at most \d+ s", out)
    assert re.search(r"memory    at most [\d.]+ MB beyond parameters", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tasks", "90:99"], "`--tasks` must lie in 0:"),
        (["--capture", "everything"], "everything"),
        (["--policy.preset", "pi9"], "pi9"),
        (["--policy.checkpoint", "no/such/folder"], "no/such/folder"),
        (["--env", "moon"], "moon"),
        (["--env", "no_such_module.Moon"], "no_such_module.Moon"),
        (["--config", "no_such_config"], "no_such_config"),
        (["--noise", "0.4", "--drive", "policy"], "0.4"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, args, message):
    code = front(["collect", *SMALL, *args, "--out", str(tmp_path / "data")])
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epsiodes", "0:2"], "--epsiodes"),
        (["--noise", "loud"], "noise.*loud"),
        (["--env.suite", "libero_object"], "env.suite"),
        (["--drive", "me"], "drive.*me"),
        (["--images"], "--images"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(tmp_path, capsys, args, message):
    assert front(["collect", *SMALL, "--out", str(tmp_path / "data"), *args]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert err.endswith("`vla-lens collect --help` lists the options.\n")
    assert err.count("\n") == 1


def test_a_missing_out_says_so(capsys):
    assert front(["collect", *SMALL]) == 2
    assert "`--out` must name the folder" in capsys.readouterr().err


def test_a_folder_of_another_fingerprint_is_refused_with_the_difference(tmp_path, capsys):
    out = str(tmp_path / "data")
    assert main([*SMALL, "--tasks", "0", "--out", out]) == 0
    assert front(["collect", *SMALL, "--seed", "7", "--out", out]) == 2
    assert "seed" in capsys.readouterr().err


def test_a_full_disk_keeps_what_is_committed(tmp_path, capsys, monkeypatch):
    from jax_bridge.shards import file_layer

    out = str(tmp_path / "data")
    assert main([*SMALL, "--tasks", "0", "--out", out]) == 0

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_layer.LOCAL_FILES.__class__, "write_at", full, raising=True)
    assert front(["collect", *SMALL, "--out", out]) == 2
    assert "the disk is full" in capsys.readouterr().err
    monkeypatch.undo()
    assert set(open_dataset(out).index["task_id"].to_pylist()) == {0}
    assert main([*SMALL, "--out", out]) == 0
    assert set(open_dataset(out).index["task_id"].to_pylist()) == {0, 1}
