"""`vla-lens ki fit`: a run from the command line, and what it says where something does not fit."""

import json
import signal

import pytest

from cli.main import main
from tests.jax_bridge.ki.data.demo_frames import attach, learn, write_frames
from tests.jax_bridge.ki.data.question_frames import write_questions

SMALL = [
    "--model.action_horizon=4", "--model.max_token_len=64", "--run.steps=2", "--run.log_every=1",
    "--run.insulation_every=0", "--run.validate_every=0", "--run.batch_size=2", "--step.ema_decay=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = write_frames(tmp_path_factory.mktemp("cli") / "demos")
    return attach(path, learn(path))


def fit(demos, out, *words):
    return main(
        ["ki", "fit", "-c", "ki_debug", f"--data.paths={demos}", f"--out={out}", *SMALL, *words]
    )


@pytest.mark.slow
def test_a_run_prints_groups_and_a_table_and_leaves_a_policy(demos, tmp_path, capsys):
    judged = ("--data.held_out=0.4", "--retention_every=1")
    assert fit(demos, tmp_path / "run", *judged) == 0
    assert "retention/cka_to_start/prompt/layer00" in (tmp_path / "run/log.jsonl").read_text()
    said = capsys.readouterr().out
    for word in ("embedder", "FAST accuracy", "steps 0 to 2", "2  ", "tensorboard --logdir"):
        assert word in said
    entry = json.loads((tmp_path / "run/run.json").read_text())
    assert entry["versions"]["jax"]
    assert entry["bound"]["data"]["datasets"][0]["samples"] == 30
    assert "max_fast_len: 96" in (tmp_path / "run/config.yaml").read_text()
    assert (tmp_path / "run/checkpoints/2/params/_METADATA").is_file()
    assert fit(demos, tmp_path / "run", *judged, "--optimiser.clip_norm=2.0") == 2
    assert "optimiser.clip_norm 1.0 instead of 2.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.action_horizon=9"], "`model.action_horizon` must be that of the demonstrations"),
        (["--data.convention=droid"], "`data.convention` must have"),
        (["--data.max_fast_len=3"], "`data.max_fast_len` must hold some FAST targets"),
        (["--data.norm_stats=none.json"], "`norm_stats` must be a norm_stats.json"),
        (["--data.paths=nowhere"], "nowhere"),
        (["--weights=nowhere"], "`checkpoint` must be a folder with an Orbax folder params/"),
        (["--weights=nowhere.npz"], "PaliGemma's .npz, but got 'nowhere.npz'"),
        (["--optimiser.freeze=nothing"], "`freeze` must match some leaves, but 'nothing'"),
        (["--objective.mode=both"], "`mode` must be one of insulate, joint"),
        (["--run.fsdp=3"], "`fsdp` must divide the number of devices, 1, but got 3"),
        (["--run.steps=0"], "`steps` must be at least 1, but got 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_trained(
    demos, tmp_path, capsys, words, message
):
    assert fit(demos, tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "run").rglob("params"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective.mode=flow_only"], "`objective.mode` must learn tokens where no robot acts"),
        (
            ["--data.max_text_len=8", "--data.overflow=raise"],
            "`data.max_text_len` must be at least 9 for all answers",
        ),
        (
            ["--data.layout.prompt=openpi_fast", "--data.layout.state_in_prompt=false"],
            "`state_in_prompt` must be left out for the prompt layout openpi_fast",
        ),
    ],
)
def test_questions_that_cannot_be_learnt_are_one_sentence(tmp_path, capsys, words, message):
    questions = write_questions(tmp_path / "questions")
    assert fit(questions, tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_needs_a_folder(capsys):
    assert main(["ki", "fit", "-c", "ki_debug"]) == 2
    assert "`--out` must name the folder of the run" in capsys.readouterr().err


def test_a_run_that_a_signal_ended_says_so_by_its_exit_code(demos, tmp_path, capsys, monkeypatch):
    from cli import ki_fit
    from jax_bridge.ki.training.trainer import TrainReport

    report = TrainReport(
        first_step=0, last_step=7, seconds=1.0, last_line={}, kept={7: 0.5}, stopped_by="SIGTERM"
    )
    monkeypatch.setattr(ki_fit, "_train", lambda *_: report)
    assert fit(demos, tmp_path / "run") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM at step 7, which is saved" in capsys.readouterr().out
