"""Runs of a sweep that ask for the same batches read them once, and end as they would alone."""

import collections
import sys

import pyarrow.parquet as pq
import pytest

from cli.sweep_output import OutputOfThreads
from cli.sweep_worker import run_group
from datamodules.field_choice import FieldChoice
from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.sweep.folder import SweepFolder
from lightning_modules.sweep.plan import make_run

CLASSES = {"data.target": "task_id"}
TRAINED = [
    {**CLASSES, "model.controls": "all"},
    {"data.target": "instruction"},
    {**CLASSES, "model.seed": 7, "model.patience": 1, "model.min_delta": 1e3},
]
"""Other targets and seeds; the first reads most, for its online code, and the last ends early."""
SOLVED = [{**CLASSES, "model.objective": name, "model.seed": 1} for name in ("ridge", "lda")]


def runs_on(data, questions):
    shared = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"controls": ["shuffled"], "permutations": 10},
        "data": {"path": str(data), "layer": [0, 2], "batch_size": 16},
    }
    return [make_run(shared, question) for question in questions]


@pytest.fixture
def reads(monkeypatch):
    """Counts how often the latents of a batch are read; nobody looks at the figures."""
    counted = collections.Counter()
    read = FieldChoice.read

    def counting(self, dataset, rows):
        counted["reads"] += 1
        return read(self, dataset, rows)

    monkeypatch.setattr(FieldChoice, "read", counting)
    monkeypatch.setattr("lightning_modules.run_folder.probe_figures", lambda results: ())
    return counted


def go(folder, runs, most, reads):
    """Runs a group; returns how many batches it read."""
    reads.clear()
    run_group(str(folder), [run.to_json() for run in runs], most)
    return reads["reads"]


@pytest.mark.parametrize("questions", [TRAINED, SOLVED], ids=["trained", "solved"])
def test_runs_that_read_together_read_as_much_as_one_and_give_what_they_give_alone(
    planted, tmp_path, reads, questions
):
    runs, folders = runs_on(planted, questions), [tmp_path / "alone", tmp_path / "together"]
    _ = LatentDataModule(**runs[0].config["data"]).statistics  # for the cache
    counts = [go(folders[0], [run], 1, reads) for run in runs]
    assert go(folders[1], runs, len(runs), reads) == max(counts)
    assert min(counts) > 3
    alone, together = map(SweepFolder, folders)
    for run in runs:
        one, other = (pq.read_table(f.result_file(run.name)) for f in (alone, together))
        assert other.equals(one)
        for file in ("metrics/val.csv", "metrics/test.csv"):
            mine, its = ((f.run_folder(run.name) / file).read_bytes() for f in (alone, together))
            assert mine == its
        assert (
            f"run folder: {folders[1]}" in (together.run_folder(run.name) / "log.txt").read_text()
        )


def test_a_run_that_fails_beside_others_is_reported_and_leaves_them_alone(
    planted, tmp_path, reads, monkeypatch
):
    questions = [*SOLVED[:1], {"data.target": "column:nowhere"}, {**CLASSES, "model.seed": 13}]
    runs = runs_on(planted, questions)
    step = LinearProbe.training_step

    def breaks_down(self, batch, batch_idx):
        if self.seed == 13 and batch_idx == 1:
            raise RuntimeError("out of luck")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LinearProbe, "training_step", breaks_down)
    go(tmp_path, runs, len(runs), reads)
    folder = SweepFolder(tmp_path)
    assert folder.finished() == {runs[0].name}
    failures = folder.failures()
    assert "nowhere" in failures[runs[1].name]
    assert failures[runs[2].name] == "RuntimeError('out of luck')"


def test_what_a_thread_prints_goes_to_its_file_and_the_rest_where_it_went(capsys, tmp_path):
    output = OutputOfThreads(sys.stdout)
    with (tmp_path / "log.txt").open("w") as file, output.to(file):
        print("inside", file=output, flush=True)
    print("outside", file=output, flush=True)
    assert (tmp_path / "log.txt").read_text() == "inside\n"
    assert capsys.readouterr().out == "outside\n"
