"""Several processes that train one model."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from jax_bridge.ki.training.processes import join_processes
from jax_bridge.ki.training.trainer import Trainer


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_and_go_on_as_one_does(tmp_path, settings_of, memory_stream):
    settings = settings_of()
    alone = Trainer(settings, memory_stream(settings.model), tmp_path / "alone").run()
    script = pathlib.Path(__file__).with_name("one_of_two.py")
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "two")],
            env={
                **os.environ, "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(number),
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=600) for process in running]
    for out, errors in said:
        assert float(out.split()[-1]) == pytest.approx(alone.last_line["loss/total"], rel=1e-5), (
            errors[-2000:]
        )
    assert sorted(path.name for path in (tmp_path / "two/checkpoints").iterdir()) == ["3", "6"]
    assert (tmp_path / "two/log.jsonl").read_text().count('"loss/total"') == 4


@pytest.mark.parametrize(("name", "value"), [("JAX_NUM_PROCESSES", ""), ("JAX_PROCESS_ID", "one")])
def test_a_process_that_does_not_know_who_it_is_is_refused(monkeypatch, name, value):
    given = {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2"}
    for key, content in {**given, "JAX_PROCESS_ID": "0", name: value}.items():
        monkeypatch.setenv(key, content)
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number, but got '{value}'"):
        join_processes()
