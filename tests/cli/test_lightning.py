import csv
import json
import re
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.main import main
from lightning_modules.linear_probe import LinearProbe
from tests.planted import write_planted

QUICK = [
    "--trainer.max_epochs", "4", "--trainer.accelerator", "cpu", "--data.batch_size", "16",
    "--trainer.enable_progress_bar", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(planted, tmp_path_factory):
    """A fitted and tested run of the action expert's grid."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    given = ["--data.path", str(planted), "--data.expert", "action", "--data.layer", "all"]
    assert main(["fit", "-c", "probe", *given, "--out", str(folder), *QUICK]) == 0
    assert main(["test", "--ckpt_path", str(folder / "checkpoints/last.ckpt")]) == 0
    (folder / "junk.ckpt").write_bytes(b".\x80\x02}q")
    return folder


def test_a_run_folder_holds_config_provenance_metrics_and_figures(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["expert"] == "action"
    assert config["data"]["fractions"] == [0.6, 0.2, 0.2]
    provenance = json.loads((run / "provenance.json").read_text())
    assert set(provenance) == {"fit", "validate", "test"}
    assert provenance["fit"]["command"].startswith("vla-lens fit -c ")
    assert len(provenance["fit"]["data"]["fingerprint"]) == 64
    assert provenance["fit"]["versions"]["torch"] == torch.__version__
    assert provenance["fit"]["data"]["splits"]["train"] == {"samples": 96, "episodes": 24}
    kinds = (
        "layers", "heatmap", "controls", "metrics", "tasks", "confusion", "reliability", "steps",
    )  # fmt: skip
    drawn = {path.name for path in (run / "figures").iterdir()} - {"curves.png", "curves.svg"}
    assert drawn == {
        f"{split}_{name}.{suffix}"
        for split in ("val", "test")
        for name in kinds
        for suffix in ("png", "svg")
    }


def test_metrics_have_one_line_a_cell_with_interval_and_yardsticks(run):
    results = json.loads((run / "metrics/test.json").read_text())
    rows = list(csv.DictReader((run / "metrics/test.csv").read_text().splitlines()))
    assert len(rows) == len(results["cells"]) == 9
    for row, cell in zip(rows, results["cells"], strict=True):
        assert float(row["score"]) == cell["score"]
        assert float(row["low"]) <= float(row["score"]) <= float(row["high"])
        assert float(row["trivial"]) == results["trivial"] == 0.25
    assert sum(row["chosen"] == "True" for row in rows) == 1
    assert sum(map(sum, results["confusion"])) == results["samples"] == 32


def test_tensorboard_shows_losses_metrics_a_cell_and_the_heatmap(run):
    tags = {"scalars": set(), "images": set()}
    for file in run.glob("events.*"):
        found = EventAccumulator(str(file)).Reload().Tags()
        for kind, names in tags.items():
            names.update(found[kind])
    assert {"train/loss", "val/loss", "val/accuracy"} <= tags["scalars"]
    assert {"val_accuracy/layer02/t0.10", "val_loss/layer05/t1.00"} <= tags["scalars"]
    assert {"val/heatmap", "test/heatmap"} <= tags["images"]


def test_predictions_are_one_row_a_sample_and_cell(run):
    checkpoint = run / "checkpoints/last.ckpt"
    assert main(["predict", "--ckpt_path", str(checkpoint)]) == 0
    table = pq.read_table(run / "predictions.parquet")
    assert table.num_rows == 160 * 9
    frame = table.to_pydict()
    right = [a == b for a, b in zip(frame["prediction"], frame["target"], strict=True)]
    assert [float(r) for r in right] == frame["score"]
    test = [
        score
        for score, split, cell in zip(frame["score"], frame["split"], frame["cell"], strict=True)
        if split == "test" and cell.endswith("layer02/t0.10")
    ]
    results = json.loads((run / "metrics/test.json").read_text())
    assert sum(test) / len(test) == pytest.approx(results["cells"][5]["score"])


def test_a_checkpoint_is_plain_types_alone(run):
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert {"state_dict", "probe_spec"} <= content.keys()


def test_a_fit_without_out_gets_a_numbered_folder(planted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["fit", "-c", "probe", "--data.path", str(planted), "--data.layer", "2", *QUICK]
    assert main(args) == 0
    assert (tmp_path / "runs/probe/version_0/metrics/val.json").is_file()


def test_print_config_writes_what_config_reads(planted, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "-c", "probe", "--data.path", str(planted), "--print_config"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    out = tmp_path / "run"
    args = ["fit", "--config", str(tmp_path / "mine.yaml"), "--out", str(out), *QUICK]
    assert main(args) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["patience"] == 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "-c", "prob"], "one of .*probe.*, but got 'prob'"),
        (["fit", "-c", "probe"], r"required: fit.data.path. `vla-lens fit --help`"),
        (["fit", "-c", "probe", "--data.path", "/nowhere"], "/nowhere has no dataset.json"),
        (["fit", "-c", "probe", "--data.path", "DATA", "--data.layer", "7"], "holds layers 0, 2"),
        (
            ["fit", "-c", "probe", "--data.path", "DATA", "--data.task_range", "7:9"],
            "no task 7-8.*holds tasks 0-3",
        ),
        (["fit", "-c", "probe", "--data.path", "DATA", "--data.batch_size", "x"], "batch_size"),
        (["fit", "-c", "probe", "--data.path", "DATA", "--out", "RUN"], "without a run"),
        (["test"], "`--ckpt_path` must be given"),
        (["test", "--ckpt_path", "/nowhere/last.ckpt"], "/nowhere/last.ckpt is not there"),
        (["test", "--ckpt_path", "RUN"], r"the folder .*Did you mean .*last.ckpt\?"),
        (["test", "--ckpt_path", "RUN/config.yaml"], "config.yaml cannot be read as one"),
        (["test", "--ckpt_path", "RUN/junk.ckpt"], "junk.ckpt cannot be read as one"),
        (["fit", "-c", "probe", "--data.path", "DATA", "--out", "RUN/junk.ckpt"], "is a file"),
        (
            ["test", "--ckpt_path", "RUN/checkpoints/last.ckpt", "--data.layer", "0"],
            "must have the cells that the checkpoint was trained on",
        ),
        (
            ["test", "--ckpt_path", "RUN/checkpoints/last.ckpt", "--data.seed", "1"],
            "must be split as in training",
        ),
        (
            ["fit", "--ckpt_path", "RUN/checkpoints/last.ckpt", "--model.patience", "3"],
            "`--model.patience` must be left out with --ckpt_path",
        ),
        (
            ["fit", "-c", "probe", "--data.path", "DATA", "--trainer.limit_val_batches", "1.5"],
            "limit_val_batches",
        ),
    ],
)  # fmt: skip
def test_a_users_error_is_one_line_and_leaves_no_folder(
    args, message, run, planted, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = [arg.replace("DATA", str(planted)).replace("RUN", str(run)) for arg in args]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"vla-lens {args[0]}: error: ")
    assert re.search(message, error)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_fit_says_how_to_go_on_and_ends_with_the_same_bits(
    planted, tmp_path, monkeypatch, capsys
):
    whole, halves, moved = tmp_path / "whole", tmp_path / "halves", tmp_path / "moved"
    args = ["fit", "-c", "probe", "--data.path", str(planted), *QUICK, "--out"]
    assert main([*args, str(whole)]) == 0

    def interrupt(module) -> None:
        if module.current_epoch == 2:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(LinearProbe, "on_train_epoch_start", interrupt)
        try:
            assert main([*args, str(halves)]) == 130
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores further Ctrl-C
    error = capsys.readouterr().err
    assert f"go on: vla-lens fit --ckpt_path {halves}/checkpoints/last.ckpt\n" in error
    assert error.endswith("vla-lens fit: interrupted\n")
    # Wherever the run lies by then, it is that run that goes on.
    shutil.move(halves, moved)
    assert main(["fit", "--ckpt_path", str(moved / "checkpoints/last.ckpt")]) == 0
    assert not halves.exists()
    first, second = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, moved)
    )
    assert first.keys() == second.keys()
    assert {"groups.0.weight", "groups.0.best_weight"} <= first.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True)
    assert (moved / "metrics/val.csv").read_bytes() == (whole / "metrics/val.csv").read_bytes()


def test_a_split_of_one_episode_has_no_interval_and_says_so(tmp_path, capsys):
    data, out = write_planted(tmp_path / "data", tasks=2, episodes=2), tmp_path / "run"
    given = ["--data.path", str(data), "--data.layer", "2", "--data.seed", "2", "--out", str(out)]
    assert main(["fit", "-c", "probe", *given, *QUICK]) == 0
    assert main(["test", "--ckpt_path", str(out / "checkpoints/last.ckpt")]) == 0
    assert main(["report", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "(one episode: no interval)" in shown
    assert "nan" not in shown
    page = (out / "report.html").read_text()
    assert "All samples are of one episode" in page
    assert "It cannot be told whether task_id can be read here." in page


def test_report_writes_one_page_of_the_run(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert "9 linear probes, test split" in (tmp_path / "page.html").read_text()
    assert main(["report", str(tmp_path)]) == 2
    assert "Run `vla-lens test" in capsys.readouterr().err
