"""Runs the groups of a sweep: in a worker process, or as a task of Ray."""

import contextlib
import gc
import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from lightning_modules.sweep.folder import SweepFolder
    from lightning_modules.sweep.plan import SweepRun

Printing = Callable[[IO[str]], contextlib.AbstractContextManager[object]]
ORPHANED = 3
"""Exit code of a worker whose sweep has gone."""


def fit_and_test(config: Path, out: Path, callbacks: "Sequence[Callback]" = ()) -> Any:
    """One run with the options of a file; returns its results on the test split."""
    from cli.lightning import ProbeCLI, quieten

    quieten()
    cli = ProbeCLI(["fit", "--config", str(config), "--out", str(out)], callbacks)
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    return cli.run_callback.results["test"]


def run_one(
    folder: "SweepFolder", run: "SweepRun", *, callbacks: "Sequence[Callback]" = (),
    printing_to: Printing = contextlib.redirect_stdout,
) -> None:  # fmt: skip
    """Runs one run and leaves its result, or the reason why there is none.

    Args:
        folder: of the sweep.
        run: what to run.
        callbacks: of its trainer.
        printing_to: sends what it prints to a file.
    """
    import yaml

    from lightning_modules.sweep.rows import result_table

    out = folder.run_folder(run.name)
    shutil.rmtree(out, ignore_errors=True)  # what a worker that died has left
    out.mkdir(parents=True)
    config = out / "settings.yaml"
    config.write_text(yaml.safe_dump(run.config, sort_keys=False), encoding="utf-8")
    try:
        with (out / "log.txt").open("w") as log, printing_to(log):
            results = fit_and_test(config, out, callbacks)
            folder.write_result(run.name, result_table(run.name, results))
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        folder.write_failure(run.name, reason, traceback.format_exc())


def run_together(folder: "SweepFolder", runs: "Sequence[SweepRun]") -> None:
    """Runs runs that ask for the same batches, in step: each batch is read once."""
    from cli.sweep_output import OutputOfThreads
    from lightning_modules.sweep.shared_reading import LastBatch, SharedReading
    from lightning_modules.sweep.turns import Turns

    turns, last, output = Turns(len(runs)), LastBatch(), OutputOfThreads(sys.stdout)

    def take_part(member: int) -> None:
        turns.begin(member)
        try:
            reading = SharedReading(turns, last, member)
            run_one(folder, runs[member], callbacks=[reading], printing_to=output.to)
        finally:
            turns.end(member)

    members = [
        threading.Thread(target=take_part, args=(member,), daemon=True)
        for member in range(len(runs))
    ]
    with contextlib.redirect_stdout(output):
        for thread in members:
            thread.start()
        for thread in members:
            thread.join()


def run_group(sweep: str, entries: list[dict[str, Any]], most: int = 1) -> None:
    """Runs a group.

    Args:
        sweep: folder of the sweep.
        entries: the runs in plain types.
        most: how many may read together.
    """
    from lightning_modules.sweep.folder import SweepFolder
    from lightning_modules.sweep.plan import SweepRun, together

    folder = SweepFolder(Path(sweep))
    for runs in together([SweepRun.from_json(entry) for entry in entries], most):
        if len(runs) == 1:
            run_one(folder, runs[0])
        else:
            run_together(folder, runs)
        gc.collect()  # a trainer and its module know each other


def _read_lines(lines: "queue.Queue[str]") -> None:
    """Takes what the sweep says; when it falls silent for ever, ends this worker and all its own.

    A thread of its own reads, so that no run goes on in a folder that others may work in by then.
    """
    for line in sys.stdin:
        lines.put(line)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(ORPHANED)


def main(args: list[str]) -> int:
    """Runs a group a line of the input: `python -m cli.sweep_worker MOST_TOGETHER FOLDER`."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else is printed goes to the log
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    answers.write(b"ready\n")
    while True:
        run_group(args[1], json.loads(lines.get()), int(args[0]))
        answers.write(b"done\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
