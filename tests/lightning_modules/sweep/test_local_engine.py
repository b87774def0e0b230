"""Worker processes that die, hang, or cannot start; the folder of a sweep that goes on."""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from lightning_modules.sweep.folder import SweepFolder
from lightning_modules.sweep.local_engine import LocalEngine, environments
from lightning_modules.sweep.plan import SweepRun
from lightning_modules.sweep.schedule import Schedule

FAKE = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]
ENTRY = {"command": "vla-lens sweep", "machine": "here", "versions": {}}


def run(name: str, do: str = "done") -> SweepRun:
    return SweepRun(name=name, settings={"do": do}, config={"data": {"path": "x"}})


def groups(*dos: tuple[str, ...]) -> list[tuple[SweepRun, ...]]:
    return [
        tuple(run(f"{number}{place}-{do}", do) for place, do in enumerate(group))
        for number, group in enumerate(dos)
    ]


def go(path, waiting, workers=2, watch=lambda: None, command=FAKE):
    folder = SweepFolder(path)
    with folder.locked() as lock:
        engine = LocalEngine(command, slots=[{}] * workers, lock=lock)
        engine.run(Schedule(folder, waiting), watch)
    return folder


def calls(folder) -> list[list[str]]:
    return [line.split(" ") for line in (folder.path / "calls.txt").read_text().splitlines()]


def test_a_worker_that_dies_fails_the_run_it_died_in_and_no_other(tmp_path):
    waiting = groups(("done", "die", "done", "leave", "done"), ("fail", "done", "nothing"))
    folder = go(tmp_path, waiting)
    assert folder.finished() == {"00-done", "02-done", "04-done", "11-done"}
    failures = folder.failures()
    assert list(failures) == ["01-die", "03-leave", "10-fail", "12-nothing"]
    assert "its process ended with signal SIGKILL, perhaps for want of memory" in failures["01-die"]
    assert "its process ended with exit code 7" in failures["03-leave"]
    assert failures["10-fail"] == "it had to"
    assert "without a result that can be seen here" in failures["12-nothing"]
    assert sorted(call[0] for call in calls(folder)) == sorted(
        run.name for group in waiting for run in group
    )


def test_of_runs_that_read_together_each_waits_alone_when_their_worker_dies(tmp_path):
    folder, (group,) = SweepFolder(tmp_path), groups(("done", "done", "die", "done", "done"))
    schedule = Schedule(folder, [group])
    assert schedule.take() == group
    finish(folder, group[0].name)
    for one in group[:3]:
        folder.run_folder(one.name).mkdir(parents=True)
    schedule.settle(group, "out of memory")
    assert folder.failures() == {}
    assert schedule.take() == group[1:2]
    finish(folder, group[1].name)
    schedule.settle(group[1:2])
    assert schedule.take() == group[2:3]
    schedule.settle(group[2:3], "out of memory")
    assert folder.failures() == {group[2].name: "out of memory"}
    assert schedule.take() == group[3:]
    assert schedule.take() is None


def test_a_sweep_that_goes_on_begins_its_runs_anew(tmp_path):
    folder = SweepFolder(tmp_path / "out")
    opened(folder, "a", "b")
    for name in "ab":
        folder.run_folder(name).mkdir(parents=True)
    finish(folder, "b")
    assert opened(folder, "a", "b") == ["a"]
    assert [folder.begun(name) for name in "ab"] == [False, True]


def test_a_worker_takes_one_group_after_the_other(tmp_path):
    folder = go(tmp_path, groups(("done", "done"), ("done",), ("done",)), workers=1)
    assert len({call[1] for call in calls(folder)}) == 1
    assert len(folder.finished()) == 4


def test_an_interrupted_sweep_ends_its_workers_and_blames_no_run(tmp_path):
    folder = SweepFolder(tmp_path)

    def interrupt() -> None:
        if (tmp_path / "calls.txt").exists() and len(calls(folder)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        go(tmp_path, groups(("hang", "done"), ("hang",)), watch=interrupt)
    assert folder.finished() == set()
    assert folder.failures() == {}
    for call in calls(folder):
        with pytest.raises(ProcessLookupError, match="No such process"):
            os.kill(int(call[1]), 0)


def test_a_worker_that_cannot_start_ends_the_sweep(tmp_path):
    with pytest.raises(OSError, match="one did not: its process ended with exit code 3"):
        go(tmp_path, groups(("done",)), command=[sys.executable, "-c", "raise SystemExit(3)"])


def test_workers_share_cores_and_devices_without_overlap(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [e["OMP_NUM_THREADS"] for e in environments(3, [])] == ["2", "2", "2"]
    assert environments(20, [])[0]["OMP_NUM_THREADS"] == "1"
    devices = [e["CUDA_VISIBLE_DEVICES"] for e in environments(4, ["0", "3"])]
    assert devices == ["0", "3", "0", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environments(3, [])[0]["OMP_NUM_THREADS"] == "5"


# ---------------------------------------------------------------------- the folder


def opened(folder: SweepFolder, *names: str, content: str = "1") -> list[str]:
    data = {"x": {"fingerprint": "f", "content": content}}
    todo = folder.open([run(name) for name in names], text="grid: {}\n", data=data, entry=ENTRY)
    return [run.name for run in todo]


def finish(folder: SweepFolder, name: str) -> None:
    folder.write_result(name, pa.table({"run": [name]}))


def test_a_sweep_goes_on_without_what_is_finished_and_may_grow(tmp_path):
    folder = SweepFolder(tmp_path / "out")
    assert opened(folder, "a", "b", "c") == ["a", "b", "c"]
    finish(folder, "b")
    folder.write_failure("a", "out of luck")
    assert opened(folder, "a", "b", "c", "d") == ["a", "c", "d"]
    assert folder.failures() == {}
    assert len(folder.record()["sessions"]) == 2
    runs = [run(name) for name in "cba"]
    assert folder.table(runs).to_pydict() == {"run": ["b"]}


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        (("a", "c"), "1", r"1 of 1 finished runs in .* are not in it \(b\)"),
        (("a", "b"), "2", "must hold what it held .* but x has changed"),
    ],
)
def test_a_sweep_that_changed_is_refused_and_leaves_the_folder_as_it_was(
    tmp_path, names, content, message
):
    folder = SweepFolder(tmp_path / "out")
    opened(folder, "a", "b")
    finish(folder, "b")
    before = (folder.path / "sweep.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        opened(folder, *names, content=content)
    assert (folder.path / "sweep.json").read_bytes() == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"but .* holds something else"):
        opened(SweepFolder(tmp_path), "a")
    with pytest.raises(ValueError, match=r"but .*thesis.tex holds something else"):
        opened(SweepFolder(tmp_path / "thesis.tex"), "a")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_sweeps_cannot_work_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_modules.sweep.folder.LOCK_SECONDS", 0.0)
    with (
        SweepFolder(tmp_path).locked(),
        pytest.raises(ValueError, match="that no other sweep works in"),
        SweepFolder(tmp_path).locked(),
    ):
        pass


def test_a_result_is_whole_or_absent(tmp_path, monkeypatch):
    folder = SweepFolder(tmp_path)

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        finish(folder, "a")
    assert folder.finished() == set()
    assert folder.table([run("a")]) is None
