"""Sweeps on Ray: an instance of their own, and a cluster that runs already.

Ray is imported where it is used: an instance of a sweep's own is bound to this machine alone only
if nobody has imported Ray before.
"""

import functools
import subprocess
import sys

import pytest

from cli.main import main
from lightning_modules.sweep import ray_engine
from lightning_modules.sweep.folder import SweepFolder
from lightning_modules.sweep.plan import SweepRun
from lightning_modules.sweep.ray_engine import RayEngine
from lightning_modules.sweep.schedule import Schedule
from tests.cli.test_sweep import sweep_file


def end_task(folder: str, entries: list[dict]) -> None:
    """Does what `do` says, as a task of Ray."""
    import os
    from pathlib import Path

    import pyarrow
    import ray

    for entry in entries:
        do = entry["settings"]["do"]
        if do == "die":
            os._exit(9)
        if do == "raise":
            raise RuntimeError("out of luck")
        given = ray.get_runtime_context().get_assigned_resources()
        here = {
            "threads": [os.environ["OMP_NUM_THREADS"]], "ip": [ray.util.get_node_ip_address()],
            "gpu": [given["GPU"]], "device": [os.environ["CUDA_VISIBLE_DEVICES"]],
        }  # fmt: skip
        SweepFolder(Path(folder)).write_result(entry["name"], pyarrow.table(here))


@pytest.fixture
def one_gpu(monkeypatch):
    """Lets an instance of Ray believe that there is one GPU; whoever uses it would find out."""
    import_really = ray_engine.import_ray

    def import_ray():
        ray = import_really()
        monkeypatch.setattr(ray, "init", functools.partial(ray.init, num_gpus=1))
        return ray

    monkeypatch.setattr(ray_engine, "import_ray", import_ray)


def test_tasks_share_a_gpu_and_one_that_dies_fails_the_run_it_died_in_and_no_other(
    tmp_path, one_gpu
):
    folder = SweepFolder(tmp_path)
    group = [
        SweepRun(name=f"{place}-{do}", settings={"do": do}, config={})
        for place, do in enumerate(["done", "die", "raise", "done"])
    ]
    with RayEngine(end_task, address="local", workers=4, cpus=0.25, gpus=0.5) as engine:
        assert engine.workers == 2  # the cores have room for four
        engine.run(Schedule(folder, [tuple(group)]), lambda: None)
    assert folder.finished() == {"0-done", "3-done"}
    assert "its Ray task ended with WorkerCrashedError" in folder.failures()["1-die"]
    assert folder.table(group).to_pydict() == {
        "threads": ["1"] * 2, "ip": ["127.0.0.1"] * 2, "gpu": [0.5] * 2, "device": ["0"] * 2,
    }  # fmt: skip
    assert "RuntimeError('out of luck')" in folder.failures()["2-raise"]


CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_sweep_finds_a_cluster_that_runs_already(planted, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    file = sweep_file(tmp_path / "sweep.yaml", planted, [0])
    command = [sys.executable, "-m", "cli.main", "sweep", "-c", str(file), "--engine", "ray"]
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        done, refused = (
            subprocess.run(
                [*command, "--address", address, "--out", str(tmp_path / name), *more],
                capture_output=True, text=True, timeout=120, check=False,
            )
            for name, more in (("out", ()), ("other", ("--gpus", "0.5")))
        )  # fmt: skip
        cluster.communicate()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/report.html").is_file()
    assert refused.returncode == 2
    assert "`--gpus` must be a share that the Ray cluster has, but got 0.5 of 0" in refused.stderr


def test_a_cluster_that_does_not_answer_is_named(planted, tmp_path, capsys, monkeypatch):
    import ray

    def refuse(**settings: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", refuse)
    file = sweep_file(tmp_path / "sweep.yaml", planted, [0])
    given = ["--engine", "ray", "--address", "10.0.0.1:6379", "--out", str(tmp_path / "out")]
    assert main(["sweep", "-c", str(file), *given]) == 2
    assert "but 10.0.0.1:6379 does not answer" in capsys.readouterr().err
