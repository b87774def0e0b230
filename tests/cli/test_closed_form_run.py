import json

import pytest

from cli.main import main
from tests.planted import write_planted


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    return write_planted(tmp_path / "data", episodes=6)


def test_a_ridge_goes_from_fit_to_report_and_says_its_passes_first(data, tmp_path, capsys):
    run = tmp_path / "run"
    quiet = "--trainer.enable_progress_bar=false"
    words = [f"--data.path={data}", "--model.objective=ridge", "--model.permutations=99"]
    assert main(["fit", *words, f"--out={run}", quiet]) == 0
    said = capsys.readouterr().out
    passes = said.index("1 pass over the training data for 5 cells: ")
    assert passes < said.index("val: accuracy 1.000")
    assert main(["test", f"--ckpt_path={run}/checkpoints/last.ckpt", quiet]) == 0
    results = json.loads((run / "metrics/test.json").read_text())
    assert (results["permutation"], results["permutations"]) == ("refit", 99)
    assert results["cells"][1]["p_corrected"] == 0.01
    assert main(["report", str(run)]) == 0
    assert "every probe was solved anew" in (run / "report.html").read_text()


def test_a_budget_that_is_too_small_is_one_sentence(data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a logger Lightning writes where it stands
    words = [f"--data.path={data}", "--model.objective=ridge", "--model.memory_budget=100"]
    assert (
        main(["fit", *words, "--trainer.enable_progress_bar=false", "--trainer.logger=false"]) == 2
    )
    error = capsys.readouterr().err
    assert "`memory_budget` must hold at least one cell" in error
    assert "but got 100. Give more" in error
