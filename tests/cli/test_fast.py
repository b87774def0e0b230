"""`vla-lens norm-stats` and `vla-lens fast` as their users call them."""

import re

import pytest

from cli.main import main
from jax_bridge.fast.targets import open_fast_targets
from jax_bridge.shards import open_dataset
from tests.jax_bridge.demos.demo_data import write_demos


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return write_demos(tmp_path_factory.mktemp("demos") / "d", episodes=20)


def error_of(capsys, *args):
    assert main([str(arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_statistics_tokenizer_and_targets_follow_each_other(demos, tmp_path, capsys):
    tokenizer = tmp_path / "tokenizer"
    assert "vla-lens norm-stats" in error_of(capsys, "fast", "fit", demos, "--out", tokenizer)
    assert main(["norm-stats", str(demos)]) == 0
    out = capsys.readouterr().out
    assert "actions: 3,200 rows, percentiles exact" in out
    assert f"400 samples -> {demos}/norm_stats.json" in out
    assert main(["fast", "fit", str(demos), "--out", str(tokenizer), "--vocab_size", "400"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"learnt from +360 +24 ", out)
    assert re.search(r"held out +40 +24 ", out)
    assert (tokenizer / "fit.png").stat().st_size > 10_000
    assert main(["fast", "attach", str(demos), "--tokenizer", str(tokenizer)]) == 0
    assert "400 samples in " in capsys.readouterr().out
    assert open_fast_targets(open_dataset(demos)).longest > 3
    again = error_of(capsys, "fast", "fit", demos, "--out", tokenizer)
    assert "must be a folder without a tokenizer" in again


def test_bad_input_is_one_sentence(demos, planted, tmp_path, capsys):
    assert f"but {planted} holds rollouts" in error_of(capsys, "norm-stats", planted)
    assert "no dataset.json" in error_of(capsys, "norm-stats", tmp_path)
    assert "`--delta_dims` must lie in 0:3" in error_of(
        capsys, "norm-stats", demos, "--delta_dims", "0:7"
    )
    (tmp_path / "norm_stats.json").write_text("{}")
    attach = ("fast", "attach", demos, "--tokenizer", tmp_path)
    assert "'norm_stats' at its top" in error_of(
        capsys, "fast", "fit", demos, "--out", tmp_path / "t",
        "--norm_stats", tmp_path / "norm_stats.json",
    )  # fmt: skip
    assert "vla-lens fast fit` makes one" in error_of(capsys, *attach)
    assert "`--success_only` must be left out" in error_of(capsys, *attach, "--success_only")


def test_percentiles_that_do_not_fit_in_memory_say_their_error(tmp_path, capsys):
    path = write_demos(tmp_path / "d", episodes=40, steps=60, horizon=40, dims=5)
    assert main(["norm-stats", str(path), "--memory", "1"]) == 0
    assert re.search(
        r"actions: 96,000 rows, percentiles off by at most \S+e-05", capsys.readouterr().out
    )
