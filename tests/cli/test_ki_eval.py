"""`vla-lens ki eval`: success a task, videos, both heads on held-out chunks."""

import json

import pytest
from PIL import Image

from cli.main import main
from tests.small_checkpoint import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "checkpoints/3")


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "data"
    words = ["--env.image_size=32", "--tasks=0:2", "--episodes=0:5", "--horizon=4", "--stride=8"]
    words += ["--drive=demonstrator", "--record=demos", f"--out={path}"]
    assert main(["collect", "--env", "tabletop", *words]) == 0
    return path


def evaluate(checkpoint, out, *words):
    chosen = ["--env.image_size=32", "--replan=4", "--max_steps=8", f"--out={out}", "--num_steps=2"]
    return main(["ki", "eval", f"--checkpoint={checkpoint}", *chosen, *words])


def test_both_heads_act_are_compared_and_the_same_command_goes_on(
    checkpoint, demos, tmp_path, capsys
):
    words = ["--tasks=0:2", "--episodes=50:52", "--head=both", "--videos=2"]
    words += [f"--dataset={demos}", "--held_out=0.2", "--samples=6"]
    assert evaluate(checkpoint, tmp_path, *words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for head in ("flow", "fast"):
        rates = report["success"][head]
        assert [rate["episodes"] for rate in rates] == [2, 2, 4]
        assert rates[-1]["name"] == "all"
        assert rates[-1]["successes"] == 0, "weights that know nothing, in 8 steps"
        assert rates[-1]["interval"][1] == pytest.approx(0.4899, abs=1e-4)  # Wilson, 0 of 4
        assert report["chunks"][head]["samples"] == 6
        assert report["chunks"][head]["mean_squared"] > 0
        videos = sorted((tmp_path / head / "videos").iterdir())
        assert [v.name for v in videos] == ["t000-e0050-failure.gif", "t001-e0050-failure.gif"]
        with Image.open(videos[0]) as video:
            assert (video.size, video.n_frames) == ((512, 256), 2)
    assert report["chunks"]["flow"]["mean_squared"] != report["chunks"]["fast"]["mean_squared"]
    assert report["fast_failures"] > 0
    capsys.readouterr()
    assert evaluate(checkpoint, tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "0/4" in said
    assert json.loads((tmp_path / "report.json").read_text())["success"] == report["success"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--videos=-1"], "`--videos` must be at least 0, but got -1"),
        (["--held_out=1.5"], "`--held_out` must lie in (0, 1), but got 1.5"),
        (["--replan=5"], "`replan` must be at most 4, the actions in a chunk of this policy"),
        (["--tasks=0:99"], "`--tasks` must"),
    ],
)
def test_bad_input_is_one_sentence(checkpoint, tmp_path, capsys, words, message):
    assert evaluate(checkpoint, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_checkpoint_must_be_named_and_be_there(tmp_path, capsys):
    assert main(["ki", "eval", f"--out={tmp_path}"]) == 2
    assert "`--checkpoint` must name a checkpoint" in capsys.readouterr().err
    assert evaluate(tmp_path / "nowhere", tmp_path) == 2
    assert "nowhere" in capsys.readouterr().err
