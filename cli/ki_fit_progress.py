"""What `vla-lens ki fit` shows: the parameters that move, a bar, a table at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from jax_bridge.ki.training.run_config import TrainSettings
    from jax_bridge.ki.training.trainer import TrainReport

SHOWN: dict[str, str] = {
    "loss/total": "loss",
    "loss/fast": "FAST loss (nats a token)",
    "loss/text": "text loss (nats a token)",
    "loss/flow": "flow loss",
    "fast/accuracy": "FAST accuracy",
    "fast/exact_chunks": "chunks with every FAST token right",
    "text/accuracy": "text accuracy (tokens of answers)",
    "text/exact_answers": "answers with every token right",
    "held_out/total": "held-out loss",
    "held_out/fast_accuracy": "held-out FAST accuracy",
    "held_out/text_accuracy": "held-out text accuracy",
    "held_out/exact_answers": "held-out answers with every token right",
    "held_out/flow": "held-out flow loss",
    "heads/flow_mse": "flow head on held-out chunks, squared error (robot units)",
    "heads/fast_mse": "FAST head on held-out chunks, squared error (robot units)",
    "heads/fast_undecodable": "share of FAST sequences that were no chunk",
    "insulation/flow_gradient_on_backbone": "flow gradient on the backbone",
    "speed/samples_per_s": "samples a second",
    "speed/tokens_per_s": "tokens a second",
    "speed/data_wait_share": "share of the time that waited for data",
    "memory/host_peak_gb": "peak memory of the process (GB)",
    "memory/device_peak_gb": "peak memory of a device (GB)",
}
"""Rows of the table at the end, by name in the log."""


class FitProgress:
    """Steps, loss, samples a second, time left."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("steps"), BarColumn(bar_width=None), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console or Console(stderr=True), expand=True,
        )  # fmt: skip
        self._task = self._bar.add_task("steps", total=steps, note="", start=False)

    def update(self, step: int, line: Mapping[str, float]) -> None:
        """Shows a step; nothing is shown before the first, so that errors stand alone."""
        if not self._bar.live.is_started:
            # The time left counts from here: a run that goes on has not done the steps before.
            self._bar.start()
            self._bar.update(self._task, completed=step)
            self._bar.start_task(self._task)
        note = ""
        if "loss/total" in line:
            note = f"loss {line['loss/total']:.4g}, {line['speed/samples_per_s']:.3g} samples/s"
        self._bar.update(self._task, completed=step, note=note)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar.live.is_started:
            self._bar.stop()


def print_groups(settings: "TrainSettings") -> None:
    """How many numbers each group has, and how many of them move."""
    from jax_bridge.ki.training.parameter_table import count_parameters

    table = Table("group", "parameters", "trained")
    for group, (every, moving) in count_parameters(settings).items():
        table.add_row(group, f"{every:,}", f"{moving:,}")
    Console().print(table)


def print_report(report: "TrainReport", out: Path) -> None:
    """The table at the end."""
    table = Table("of the last steps", "")
    for name, label in SHOWN.items():
        if name in report.last_line:
            table.add_row(label, f"{report.last_line[name]:.4g}")
    console = Console()
    console.print(table)
    took = f"steps {report.first_step} to {report.last_step} in {report.seconds:,.0f} s"
    console.print(f"{took}; checkpoints (with their loss) in {out}/checkpoints:", soft_wrap=True)
    best = min(report.kept.values(), default=None)
    for step, loss in report.kept.items():
        console.print(f"  {step}  {loss:.4g}{'  best' if loss == best else ''}")
    console.print(f"curves: tensorboard --logdir {out}", soft_wrap=True)
