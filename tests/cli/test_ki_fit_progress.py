"""What `ki fit` shows while it trains and at the end."""

import io
import os
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from cli import ki_fit_progress
from cli.ki_fit import DETERMINISTIC, _start_processes
from cli.ki_fit_progress import SHOWN, FitProgress, print_report
from jax_bridge.ki.training.trainer import TrainReport


def test_the_bar_has_loss_rate_and_time_left():
    shown = io.StringIO()
    console = Console(file=shown, width=90, force_terminal=True, color_system=None)
    progress = FitProgress(500, console=console)
    assert not shown.getvalue()
    progress.update(120, {"loss/total": 1.23456, "speed/samples_per_s": 42.4242})
    progress.close()
    line = next(part for part in re.split(r"[\r\n]", shown.getvalue()) if "120/500" in part)
    assert "loss 1.235, 42.4 samples/s" in line
    assert re.search(r"\d+:\d\d|--:--", line)


def test_the_table_at_the_end_names_what_was_logged_and_the_best_checkpoint(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ki_fit_progress, "Console", lambda: Console(width=100))
    line = {name: number + 0.5 for number, name in enumerate(SHOWN)}
    report = TrainReport(
        first_step=3, last_step=9, seconds=61.0, last_line=line, kept={6: 0.25, 9: 0.5},
        stopped_by=None,
    )  # fmt: skip
    print_report(report, tmp_path)
    said = capsys.readouterr().out
    for number, label in enumerate(SHOWN.values()):
        assert re.search(rf"{re.escape(label)} .*{number + 0.5:.4g}", said), label
    assert "steps 3 to 9 in 61 s" in said
    assert re.search(r"6  0.25  best\n +9  0.5\n", said)


@pytest.mark.parametrize("asked", [True, False])
def test_deterministic_kernels_are_asked_for_before_jax_starts(monkeypatch, asked):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_max_hlo_modules=1")
    config = SimpleNamespace(run=SimpleNamespace(deterministic=asked), distributed=False)
    _start_processes(config)
    _start_processes(config)
    flags = os.environ["XLA_FLAGS"].split()
    assert flags.count(DETERMINISTIC) == (1 if asked else 0)
    assert flags[0] == "--xla_dump_max_hlo_modules=1"
