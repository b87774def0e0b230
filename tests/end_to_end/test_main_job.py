"""The main job, as a newcomer types it: collect, inspect, verify, fit, test, report."""

import json

import pytest

from cli.main import main

TRAINER = ["--trainer.max_epochs", "20", "--trainer.enable_progress_bar", "false"]


def probe(data, run, *options):
    """Fits, tests and reports; returns what `test` found."""
    fit = ["fit", "-c", "probe", "--data.path", str(data), *options, *TRAINER, "--out", str(run)]
    assert main(fit) == 0
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    assert main(["report", str(run)]) == 0
    return json.loads((run / "metrics" / "test.json").read_text())


def check_report(run):
    page = (run / "report.html").read_text()
    assert 'src="data:image/' in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    return page


def test_the_quickstart_finds_the_words_in_the_instructions_tokens(tmp_path, capsys):
    data = tmp_path / "data"
    collect = ["collect", "-c", "collect_tabletop", "--tasks", "0:3", "--episodes", "0:10"]
    assert main([*collect, "--env.image_size", "64", "--out", str(data)]) == 0
    assert main(["shards", "inspect", str(data)]) == 0
    assert "put the red cube in the blue bowl" in capsys.readouterr().out
    assert main(["shards", "verify", str(data)]) == 0

    words = probe(data, tmp_path / "words", "--data.expert", "vlm", "--data.region", "instruction")
    scores = [cell["score"] for cell in words["cells"]]
    assert len(scores) == 4
    assert max(scores) > 0.99

    page = check_report(tmp_path / "words")
    assert "pi05_micro" in page


@pytest.mark.libero
def test_the_main_job_runs_on_the_real_simulator(tmp_path):
    data = tmp_path / "data"
    collect = [
        *("collect", "--env", "libero", "--env.suite", "libero_object"),
        *("--policy.preset", "pi05_micro", "--drive", "demonstrator", "--noise", "0.4"),
        *("--tasks", "0:2", "--episodes", "0:4", "--stride", "20", "--max-steps", "41"),
        *("--capture", "pooled", "--out", str(data)),
    ]
    assert main(collect) == 0
    found = probe(
        data,
        tmp_path / "run",
        *("--data.expert", "vlm", "--data.region", "instruction"),
        *("--data.fractions", "[0.5, 0.25, 0.25]"),
    )
    assert max(cell["score"] for cell in found["cells"]) > 0.9
    page = check_report(tmp_path / "run")
    assert "libero_object" in page
    assert "pi05_micro" in page
