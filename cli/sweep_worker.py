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
from pathlib import Path
from typing import Any

ORPHANED = 3
"""Exit code of a worker whose sweep has gone."""


def fit_and_test(config: Path, out: Path) -> Any:
    """One run with the options of a file; returns its results on the test split."""
    from cli.lightning import ProbeCLI, quieten

    quieten()
    cli = ProbeCLI(["fit", "--config", str(config), "--out", str(out)])
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    return cli.run_callback.results["test"]


def run_one(sweep: Path, entry: dict[str, Any]) -> None:
    """Runs one run and leaves its result, or the reason why there is none."""
    import yaml

    from lightning_modules.sweep.folder import SweepFolder
    from lightning_modules.sweep.rows import result_table

    folder, name = SweepFolder(sweep), entry["name"]
    out = folder.run_folder(name)
    shutil.rmtree(out, ignore_errors=True)  # what a run that was killed has left
    out.mkdir(parents=True)
    config = out / "settings.yaml"
    config.write_text(yaml.safe_dump(entry["config"], sort_keys=False), encoding="utf-8")
    try:
        with (out / "log.txt").open("w") as log, contextlib.redirect_stdout(log):
            folder.write_result(name, result_table(name, fit_and_test(config, out)))
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        folder.write_failure(name, reason, traceback.format_exc())


def run_group(sweep: str, entries: list[dict[str, Any]]) -> None:
    """Runs a group.

    Args:
        sweep: folder of the sweep.
        entries: the runs in plain types.
    """
    for entry in entries:
        run_one(Path(sweep), entry)
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
    """Runs a group a line of the input: `python -m cli.sweep_worker FOLDER`."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else is printed goes to the log
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
    answers.write(b"ready\n")
    while True:
        run_group(args[0], json.loads(lines.get()))
        answers.write(b"done\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
