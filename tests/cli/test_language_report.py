"""`vla-lens language-report` from the command line to the page."""

import csv
import json
import re

import pytest

from cli.main import main
from tests.planted import write_planted


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("language") / "data", episodes=6, samples=3)


FEW = ["--draws", "20", "--permutations", "20", "--vlm_region", "image_left_wrist"]


@pytest.fixture(scope="module")
def out(dataset, tmp_path_factory):
    """What the command leaves behind, at one layer."""
    out = tmp_path_factory.mktemp("report") / "out"
    args = ["language-report", str(dataset), "--out", str(out), "--layer", "[0, 2]", *FEW]
    assert main(args) == 0
    return out


def test_the_command_leaves_tables_and_figures(out):
    tables = {path.stem for path in (out / "tables").iterdir()}
    assert tables == {"trajectories", "separability", "fading", "separation"}
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {"language_loss.png", "language_loss.svg", "separation_cka.png"} <= figures
    with (out / "tables" / "trajectories.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["expert"] for row in rows} == {"vlm", "text_only", "action", "state and time"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["command"].startswith("vla-lens language-report")
    assert summary["options"]["layer"] == [0, 2]


def test_the_page_needs_no_other_file_and_says_that_failures_are_missing(out):
    text = (out / "report.html").read_text()
    assert "http" not in re.sub(r'src="data:[^"]*"', "", text)
    assert "Too few failures" in text
    assert "Nothing can be said about success: 24 episodes succeeded and 0 failed" in text
    assert text.count("<figure>") == len(list((out / "figures").glob("*.svg")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "9"], "`layer` must be captured, but got 9"),
        (["--folds", "1"], "`folds` must be at least 2, but got 1"),
        (["--site", "mlp_activation"], "`expert`, `site`, `region` and `pool` must name"),
        (["--fold_by", "sample"], "sample"),
        (["--episode_range", "0:1"], "at least 6 episodes"),
    ],
)
def test_a_wrong_option_is_one_line(dataset, tmp_path, capsys, options, message):
    assert main(["language-report", str(dataset), "--out", str(tmp_path / "x"), *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(dataset, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert main(["language-report", str(dataset), "--out", str(tmp_path / "taken")]) == 2
    assert "`--out` must be a folder, but" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_is_no_data_set_is_named(tmp_path, capsys):
    assert main(["language-report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_latent_that_is_not_finite_is_named(tmp_path, capsys):
    key = "planted-t001-e0002-s0005"
    path = write_planted(tmp_path / "data", episodes=4, samples=3, broken=key)
    assert main(["language-report", str(path), "--out", str(tmp_path / "x"), *FEW]) == 2
    err = capsys.readouterr().err
    assert key in err
    assert "vlm.hidden_states.text.mean" in err
