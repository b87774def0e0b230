"""A sweep of real probes: what it leaves, how it goes on, what it refuses."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cli.main import main
from cli.sweep_progress import SweepProgress
from lightning_modules.results import load_results

FAILS = 99
"""A rollout step that the data do not hold."""


def sweep_file(path, data, steps, **more):
    content = {
        "base": "probe",
        "fit": {
            "trainer": {"max_epochs": 2, "accelerator": "cpu"},
            "model": {"controls": ["shuffled"], "permutations": 10},
            "data": {"path": str(data), "layer": [0, 2], "batch_size": 16},
        },
        "grid": {"data.rollout_step": steps, "seeds": [{"data.seed": 0, "model.seed": 1}]},
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def swept(planted, tmp_path_factory):
    """A sweep of three runs, of which one fails: its folder, file, code, and output."""
    folder = tmp_path_factory.mktemp("sweep")
    file = sweep_file(folder / "sweep.yaml", planted, [0, FAILS, [0, 5]])
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = main(["sweep", "-c", str(file), "--workers", "1", "--out", str(folder / "out")])
    return folder / "out", file, (code, said.getvalue(), errors.getvalue())


def run_folders(out) -> dict[str, str]:
    """Names of the runs by their rollout step, as text."""
    runs = json.loads((out / "sweep.json").read_text())["runs"]
    return {str(settings["data.rollout_step"]): name for name, settings in runs.items()}


def test_a_failing_run_is_reported_with_its_reason_and_does_not_stop_the_others(swept):
    out, _, (code, _, error) = swept
    assert code == 1, error
    names = run_folders(out)
    assert {path.stem for path in (out / "results").iterdir()} == {names["0"], names["[0, 5]"]}
    reason = re.search(rf"^failed: {names[str(FAILS)]}: (.*)$", error, re.MULTILINE)[1]
    assert "rollout_step" in reason
    assert "99" in reason
    assert "1 of 3 runs failed" in error
    assert json.loads((out / f"failed/{names[str(FAILS)]}.json").read_text())["reason"] == reason
    assert reason.partition("`.")[0] in (out / "report.html").read_text()


def test_the_table_has_a_row_a_run_cell_metric_and_control_with_the_settings(swept):
    out = swept[0]
    names = run_folders(out)
    rows = pq.read_table(out / "results.parquet").to_pylist()
    keys = [(r["run"], r["layer"], r["metric"], r["control"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert {r["data.rollout_step"] for r in rows} == {"0", "[0, 5]"}
    assert {(r["data.seed"], r["model.seed"]) for r in rows} == {(0, 1)}
    for step in ("0", "[0, 5]"):
        results = load_results(out / "runs" / names[step] / "metrics/test.json")
        own = [r for r in rows if r["data.rollout_step"] == step]
        scores = [r for r in own if r["main"] and not r["control"]]
        assert [r["value"] for r in scores] == [cell.score for cell in results.cells]
        assert [(r["low"], r["high"]) for r in scores] == [c.interval for c in results.cells]
        assert [r["p_corrected"] for r in scores] == [c.p_corrected for c in results.cells]
        assert [r["chosen"] for r in scores].index(True) == results.chosen
        shuffled = [r for r in own if r["control"] == "shuffled"]
        found = [cell.controls["shuffled"] for cell in results.cells]
        assert [r["value"] for r in shuffled] == [control.score.value for control in found]
        assert [r["margin_low"] for r in shuffled] == [control.margin.low for control in found]
        for name, estimate in results.cells[0].metrics.items():
            if name != results.score_name and estimate.value == estimate.value:
                row = next(r for r in own if r["metric"] == name and r["layer"] == 0)
                assert row["value"] == estimate.value


def test_a_run_of_a_sweep_is_what_fit_and_test_give_alone(swept, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_modules.run_folder.probe_figures", lambda results: ())
    out = swept[0]
    run = out / "runs" / run_folders(out)["0"]
    alone = tmp_path / "alone"
    assert main(["fit", "-c", str(run / "settings.yaml"), "--out", str(alone)]) == 0
    assert main(["test", "--ckpt_path", str(alone / "checkpoints/last.ckpt")]) == 0
    for name in ("val", "test"):
        path = f"metrics/{name}.csv"
        assert (alone / path).read_bytes() == (run / path).read_bytes()


def test_the_folder_says_where_the_numbers_come_from(swept, planted):
    out, file, (_, said, _) = swept
    record = json.loads((out / "sweep.json").read_text())
    assert len(record["data"][str(planted)]["fingerprint"]) == 64
    assert record["sessions"][0]["command"].startswith("vla-lens sweep -c ")
    assert "torch" in record["sessions"][0]["versions"]
    assert (
        yaml.safe_load((out / "sweep.yaml").read_text())["grid"]
        == (yaml.safe_load(file.read_text())["grid"])
    )
    assert "3 runs in 3 groups, 1 at once" in said
    assert len(re.findall(r"^(?:0|\[0, 5\]) .*accuracy \d\.\d{3}", said, re.MULTILINE)) == 2
    page = (out / "report.html").read_text()
    assert "2 of 3" in page
    assert 'class="sortable"' in page
    assert "http" not in re.sub(r"http://www.w3.org\S+", "", page)


def test_a_sweep_goes_on_with_what_failed_and_what_is_new_alone(swept, planted, tmp_path, capsys):
    out = swept[0]
    before = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    file = sweep_file(tmp_path / "more.yaml", planted, [0, 5, [0, 5]])
    args = ["sweep", "-c", str(file), "--out", str(out), "--workers", "1"]
    assert main(args) == 0
    assert "2 of 3 runs were finished already\n1 runs in 1 groups" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((out / "results").iterdir())) == 3
    assert list((out / "failed").iterdir()) == []
    assert set(pq.read_table(out / "results.parquet")["data.rollout_step"].to_pylist()) == {
        "0", "5", "[0, 5]"
    }  # fmt: skip
    # What is finished is shown again without a worker.
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 runs were finished already" in shown
    assert "runs in" not in shown
    assert main(["sweep", "-c", str(file), "--out", str(out), "--fit.trainer.max_epochs", "3"]) == 2
    assert "A sweep may grow in its folder, not change" in capsys.readouterr().err


def test_a_sweep_on_a_ray_instance_of_its_own_gives_the_numbers_of_local_workers(
    swept, planted, tmp_path, capsys
):
    file, out = sweep_file(tmp_path / "sweep.yaml", planted, [0, FAILS]), tmp_path / "out"
    args = ["sweep", "-c", str(file), "--out", str(out), "--workers", "1", "--engine", "ray"]
    assert main([*args, "--address", "local"]) == 1
    said = capsys.readouterr()
    assert "2 runs in 2 groups, 1 at once" in said.out
    assert re.search(r"^failed: 99-0-1_\w+: `rollout_step` ", said.err, re.MULTILINE)
    name = run_folders(out)["0"]
    results = [pq.read_table(folder / f"results/{name}.parquet") for folder in (out, swept[0])]
    assert results[0].equals(results[1])


def wait_for(condition, process, what) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < end, what
        time.sleep(0.02)


def workers_of(process) -> list[int]:
    """Children of all its threads: a worker is started by the thread that serves it."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sorted({int(pid) for task in tasks for pid in (task / "children").read_text().split()})


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def times(results) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in results.glob("*.parquet")}


def test_a_sweep_that_was_killed_or_interrupted_repeats_nothing(
    planted, tmp_path, monkeypatch, capsys
):
    out, file = tmp_path / "out", sweep_file(tmp_path / "sweep.yaml", planted, [0, 5])
    light = ["--fit.model.controls", "none", "--fit.model.permutations", "0"]
    args = ["sweep", "-c", str(file), "--out", str(out), "--workers", "1", *light]
    command = [sys.executable, "-m", "cli.main", *args]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(times(out / "results")) == 1, process, "a result")
    workers = workers_of(process)
    process.kill()
    process.wait()
    assert len(workers) == 1
    end = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < end, "a worker outlives its sweep"
        time.sleep(0.02)
    first = times(out / "results")
    assert not (out / "results.parquet").exists()

    def interrupt(progress: SweepProgress, finished: int, failed: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepProgress, "update", interrupt)
        assert main(args) == 130
    hint = f"1 of 2 runs are finished; go on: vla-lens {shlex.join(args)}\n"
    assert capsys.readouterr().err.endswith(f"vla-lens sweep: interrupted: {hint}")
    assert times(out / "results") == first

    assert main(args) == 0
    last = times(out / "results")
    assert first.items() < last.items()
    assert len(last) == len(set(pq.read_table(out / "results.parquet")["run"].to_pylist())) == 2


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({}, ["--grid.data.targt", "[a]"], "does not accept option 'data.targt'"),
        ({}, ["--fit.data.batch_size", "many"], "data.batch_size"),
        ({}, ["--fit.trainer.devices", "2"], "`trainer.devices` must be 1 in a sweep, but got 2"),
        ({}, ["--fit.out", "here"], "`fit` must hold neither out nor ckpt_path"),
        ({}, ["--fit.data.path", "/nowhere"], "/nowhere has no dataset.json"),
        ({}, ["--base", "prob"], "one of .*probe.*, but got 'prob'"),
        ({}, ["--workers", "0"], "`--workers` must be positive, but got 0"),
        ({}, ["--gpus", "-1"], "`--gpus` must be positive, but got -1"),
        ({}, ["--engine", "slurm"], "engine"),
        ({}, ["--out", "FILE"], "`--out` must be a new folder or that of a sweep"),
        ({"grid": {"data.seed": 3}}, [], "a list of settings for each axis"),
        ({"grid": {}}, [], "`grid` must hold at least one axis"),
        ({"gird": {"data.seed": [1]}}, [], "gird"),
    ],
)
def test_a_users_error_is_one_line_and_leaves_no_folder(
    change, more, message, planted, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    file = sweep_file(tmp_path / "sweep.yaml", planted, [0], **change)
    more = [arg.replace("FILE", str(file)) for arg in more]
    assert main(["sweep", "-c", str(file), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("vla-lens sweep: error: ")
    assert re.search(message, error)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
