"""`vla-lens predict -c capture_robovlms`: the documented command, on a policy of a few numbers."""

import numpy as np
import pytest

from cli.lightning_choice import names_a_class
from cli.main import main
from jax_bridge.shards import open_dataset
from tests.datamodules.frames.conftest import write_folders
from tests.lightning_modules.capture.tiny_robovlms import (
    QUERIES,
    WIDTH,
    save,
    save_tokenizer,
    tiny_tensors,
)

FIELD = "context.act_head.input.tokens"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    root = tmp_path_factory.mktemp("given")
    save(root / "policy.pt", tiny_tensors())
    save_tokenizer(root / "tokenizer")
    write_folders(root / "frames")
    return root


def command(given, out, *more):
    return [
        "predict", "-c", "capture_robovlms", "--model.model.checkpoint", str(given / "policy.pt"),
        "--model.model.text_heads", "4", "--model.model.vision_heads", "3",
        "--data.path", str(given / "frames"), "--trainer.enable_progress_bar", "false",
        "--out", str(out), *more,
    ]  # fmt: skip


def test_the_documented_command_writes_vectors_and_goes_on(given, tmp_path, capsys):
    tokens = ["--data.tokenizer", str(given / "tokenizer")]
    assert main(command(given, tmp_path / "out", *tokens)) == 0
    assert "captured: 12 samples" in capsys.readouterr().out
    data = open_dataset(tmp_path / "out")
    vectors = data.read(FIELD)
    assert vectors.shape == (12, 1, 1, WIDTH)
    assert len(np.unique(vectors.reshape(12, -1), axis=0)) == 12
    assert data.info.model["tensors"]["backbone"] == data.info.model["tensors"]["total"] - 3
    assert main(command(given, tmp_path / "out", *tokens)) == 0
    assert "captured: 0 samples" in capsys.readouterr().out
    assert main(["shards", "inspect", str(tmp_path / "out")]) == 0
    assert f"{FIELD}  float32  frame 1 x token 1 x width 32  12" in capsys.readouterr().out
    assert QUERIES  # the policy has image tokens


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.tokenizer", "null"], "`tokenizer` must be given for RoboVLMs, but got None"),
        (
            ["--data.tokenizer", "/nowhere"],
            "`tokenizer` must be one that can be loaded, but '/nowhere'",
        ),
        (
            ["--model.points", "[{module: act_haed}]"],
            "but got 'act_haed'. The nearest are act_head",
        ),
        (
            ["--model.model.checkpoint", "/none.pt"],
            "`checkpoint` must be a file, but /none.pt is not",
        ),
        (["--data.path", "/none"], "but /none is not there"),
        (["--out", "null"], "`--out` must be a folder to write into, but got none"),
    ],
)
def test_what_is_missing_is_one_sentence(given, tmp_path, capsys, more, message):
    assert main(command(given, tmp_path / "out", *more)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.strip().count("\n") == 0


def test_a_class_in_a_configuration_or_on_the_line_chooses_the_command_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("model:\n  class_path: a.B\n")
    assert names_a_class(["predict", "-c", "capture_robovlms"])
    assert names_a_class(["predict", f"--config={tmp_path / 'mine.yaml'}"])
    assert names_a_class(["test", "--model", "a.B"])
    assert not names_a_class(["fit", "-c", "probe", "--model.objective", "mse"])
    assert not names_a_class(["predict", "--ckpt_path", "a.ckpt"])
