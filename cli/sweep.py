"""`vla-lens sweep`: fits and tests over a grid of settings, side by side."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from lightning_modules.sweep.folder import SweepFolder
    from lightning_modules.sweep.plan import SweepRun
    from lightning_modules.sweep.schedule import Engine

DESCRIPTION = """Fits and tests probes over a grid of settings: targets, rollout steps, seeds, data
sets, splits, or any other option of `vla-lens fit`. A sweep that was stopped goes on where it
stopped; what fails is reported and does not stop the rest."""
DEFAULT_OUT = Path("runs/sweep")
FAILED = 1
"""Exit code of a sweep in which a run failed."""
TOGETHER = 4
"""Runs that read together: each holds its own weights and its optimiser's state."""
SHOWN_LINES = 40
"""Runs and failures that are printed; the files hold all."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens sweep`."""
    parser = ArgumentParser(prog="vla-lens sweep", description=DESCRIPTION, exit_on_error=False)
    add = parser.add_argument
    add("-c", "--config", action="config", help="a YAML file, or a name in configs")
    add(
        "--base", type=str | None, default=None,
        help="configuration of `vla-lens fit` that all runs begin with: a file or a shipped name",
    )  # fmt: skip
    add("--fit", type=dict[str, Any], default={}, help="options of `vla-lens fit` for all runs")
    add("--grid", type=dict[str, Any], default={}, help="a list of settings for each option")
    add("--out", type=str | None, default=None, help=f"folder of the sweep; {DEFAULT_OUT}")
    add("--engine", type=Literal["local", "ray"], default="local", help="who runs it")
    add(
        "--workers", type=int | None, default=None,
        help="runs at once; local: by default one for each GPU, or core where there is none",
    )  # fmt: skip
    add(
        "--together", type=int, default=TOGETHER,
        help="runs that read their batches together at most; each takes memory; 1: none",
    )  # fmt: skip
    add(
        "--address", type=str | None, default=None,
        help="of a Ray cluster; by default RAY_ADDRESS, or an instance of our own",
    )  # fmt: skip
    add("--cpus", type=float, default=1.0, help="share of cores of a run, with Ray")
    add("--gpus", type=float | None, default=None, help="share of a GPU of a run, with Ray: 0.25")
    return parser


def _refuse_numbers(config: Namespace) -> None:
    for name in ("workers", "together", "cpus", "gpus"):
        value = config[name]
        if value is not None and (value < 0 if name == "gpus" else value <= 0):
            raise ValueError(f"`--{name}` must be positive, but got {value}.")


def main(args: list[str]) -> int:
    """Runs `vla-lens sweep ...`.

    Raises:
        ValueError: if the grid, an option or the folder does not fit.
        FileNotFoundError: if a data set is not there.
        KeyboardInterrupt: on Ctrl-C; says how to go on.
    """
    parser = build_parser()
    config = parser.parse_args(resolve_config_args(args[1:]))
    _refuse_numbers(config)
    from cli.sweep_plan import data_records, plan_runs
    from lightning_modules.provenance import provenance
    from lightning_modules.sweep.folder import SweepFolder

    runs = plan_runs(config.base, config.fit, config.grid)
    folder = SweepFolder(Path(config.out) if config.out else DEFAULT_OUT)
    folder.record()  # refuses the folder before the data are read
    data = data_records(runs)
    text = parser.dump(config)
    command = shlex.join(["vla-lens", *args])
    entry = provenance(command=command, data={}, device=config.engine)
    with folder.locked() as lock:
        todo = folder.open(runs, text=text, data=data, entry=entry)
        if len(todo) < len(runs):
            print(f"{len(runs) - len(todo)} of {len(runs)} runs were finished already")
        try:
            if todo:
                with _engine(config, len(todo), lock) as engine:
                    _work(engine, folder, todo)
        except KeyboardInterrupt:
            done = len(folder.finished())
            raise KeyboardInterrupt(
                f"{done} of {len(runs)} runs are finished; go on: {command}"
            ) from None
        return _close(folder, runs)


@contextlib.contextmanager
def _engine(config: Namespace, runs: int, lock: Any) -> "Iterator[Engine]":
    if config.engine == "ray":
        from cli.sweep_worker import run_group
        from lightning_modules.sweep.ray_engine import RayEngine

        most = config.together

        def task(folder: str, entries: list[dict[str, Any]]) -> None:
            run_group(folder, entries, most)

        with RayEngine(
            task, address=config.address, workers=config.workers, cpus=config.cpus,
            gpus=config.gpus,
        ) as engine:  # fmt: skip
            yield engine
        return
    from lightning_modules.sweep.local_engine import LocalEngine, environments

    devices = _gpus(config)
    workers = config.workers or len(devices) or len(os.sched_getaffinity(0))
    slots = environments(min(workers, runs), devices)
    command = [sys.executable, "-m", "cli.sweep_worker", str(config.together)]
    yield LocalEngine(command, slots=slots, lock=lock)


def _gpus(config: Namespace) -> list[str]:
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES lists them."""
    from cli.sweep_plan import shared_config

    shared = shared_config(config.base, config.fit)
    if shared.get("trainer", {}).get("accelerator") == "cpu":
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named if named != [""] else [str(i) for i in range(torch.cuda.device_count())]


def _work(engine: "Engine", folder: "SweepFolder", todo: "Sequence[SweepRun]") -> None:
    """Runs what is to do, behind a progress bar."""
    from cli.sweep_progress import SweepProgress
    from lightning_modules.sweep.plan import groups_of
    from lightning_modules.sweep.schedule import Schedule

    groups = groups_of(todo, engine.workers)
    print(f"{len(todo)} runs in {len(groups)} groups, {engine.workers} at once -> {folder.path}")
    names = {run.name for run in todo}
    with SweepProgress(len(todo)) as progress:
        engine.run(
            Schedule(folder, groups),
            lambda: progress.update(len(folder.finished() & names), len(folder.failures())),
        )


def _close(folder: "SweepFolder", runs: "Sequence[SweepRun]") -> int:
    """Writes the table and the report, and says what came out."""
    from lightning_modules.sweep.page import write_sweep
    from lightning_modules.sweep.summary import summary_lines

    failures = folder.failures()
    lines = write_sweep(folder, runs)
    for line in summary_lines(lines, limit=SHOWN_LINES):
        print(line)
    if lines:
        print(f"table: {folder.path}/results.parquet\nreport: {folder.path}/report.html")
    for name, reason in list(failures.items())[:SHOWN_LINES]:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failures:
        print(
            f"{len(failures)} of {len(runs)} runs failed; {folder.path}/failed says why. The same "
            "command tries them again.",
            file=sys.stderr,
        )
    return FAILED if failures else 0
