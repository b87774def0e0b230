"""What a sweep leaves on disk, and how one that was killed finds out what is done.

OUT/sweep.yaml              the sweep as it was asked for
OUT/sweep.json              its runs and their settings, the data sets, command and versions
OUT/runs/NAME/              a run folder of `vla-lens fit` and `test`, as docs/cells.md explains it
OUT/results/NAME.parquet    there once the run is done; written whole or not at all
OUT/failed/NAME.json        why a run failed; it is tried again when the sweep goes on
OUT/results.parquet         one row a cell, metric and control of all runs
OUT/report.html             one page
OUT/logs/                   what the workers printed
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_modules.sweep.plan import SweepRun

LOCK = ".lock"
LOCK_SECONDS = 10.0
"""How long the workers of a sweep that was killed may take to end."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that others see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def json_bytes(content: Any) -> bytes:
    """Readable JSON."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


class SweepFolder:
    """The folder of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # ------------------------------------------------------------------ one run

    def run_folder(self, name: str) -> Path:
        """Where a run writes."""
        return self.path / "runs" / name

    def result_file(self, name: str) -> Path:
        """There once the run is done."""
        return self.path / "results" / f"{name}.parquet"

    def failure_file(self, name: str) -> Path:
        """There if the run failed."""
        return self.path / "failed" / f"{name}.json"

    def write_result(self, name: str, table: pa.Table) -> None:
        """Marks a run as done."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_whole(self.result_file(name), buffer.getvalue())

    def write_failure(self, name: str, reason: str, traceback: str = "") -> None:
        """Marks a run as failed."""
        content = {"reason": " ".join(reason.split()), "traceback": traceback}
        write_whole(self.failure_file(name), json_bytes(content))

    def begun(self, name: str) -> bool:
        """Whether a run was begun since the sweep was last started."""
        return self.run_folder(name).is_dir()

    def settled(self, name: str) -> bool:
        """Whether a run is done or has failed."""
        return self.result_file(name).is_file() or self.failure_file(name).is_file()

    # ------------------------------------------------------------------ all runs

    def finished(self) -> set[str]:
        """Names of the runs that are done."""
        return {path.stem for path in (self.path / "results").glob("*.parquet")}

    def failures(self) -> dict[str, str]:
        """Reasons by run, sorted."""
        files = sorted((self.path / "failed").glob("*.json"))
        return {file.stem: json.loads(file.read_text())["reason"] for file in files}

    def forget_failures(self) -> None:
        """Lets the runs that failed be tried again."""
        for file in (self.path / "failed").glob("*.json"):
            file.unlink()

    def record(self) -> dict[str, Any] | None:
        """What stands in sweep.json; None in a new folder.

        Raises:
            ValueError: if the folder holds something else.
        """
        path = self.path / "sweep.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        folder = self.path.is_dir()
        strange = self.path.exists() and not folder
        if strange or (folder and {file.name for file in self.path.iterdir()} - {LOCK}):
            raise ValueError(
                f"`--out` must be a new folder or that of a sweep, but {self.path} holds something "
                "else. Choose another one."
            )
        return None

    def open(
        self, runs: Sequence[SweepRun], *, text: str, data: dict[str, Any], entry: dict[str, Any]
    ) -> list[SweepRun]:
        """Starts a sweep here, or goes on with it; returns the runs that are still to do.

        Args:
            runs: all runs.
            text: the sweep as YAML.
            data: what identifies each data set, by its path.
            entry: command, machine and versions of this start.

        Raises:
            ValueError: if the folder holds results that are not of this sweep.
        """
        record = self.record()
        finished = self.finished()
        self._check(record, finished, {run.name for run in runs}, data)
        sessions = [*(record["sessions"] if record else []), entry]
        settings = {run.name: run.settings for run in runs}
        write_whole(self.path / "sweep.yaml", text.encode())
        content = {"runs": settings, "data": data, "sessions": sessions}
        write_whole(self.path / "sweep.json", json_bytes(content))
        self.forget_failures()
        todo = [run for run in runs if run.name not in finished]
        for run in todo:  # what was cut off starts again from its beginning
            shutil.rmtree(self.run_folder(run.name), ignore_errors=True)
        return todo

    def _check(
        self, record: dict[str, Any] | None, finished: set[str], planned: set[str],
        data: dict[str, Any],
    ) -> None:  # fmt: skip
        strange = sorted(finished - planned)
        if strange:
            raise ValueError(
                f"`--out` must hold results of this sweep alone, but {len(strange)} of "
                f"{len(finished)} finished runs in {self.path} are not in it ({strange[0]}). A "
                "sweep may grow in its folder, not change: choose another folder."
            )
        if not finished or record is None:
            return
        changed = [p for p, known in record["data"].items() if data.get(p, known) != known]
        if changed:
            raise ValueError(
                f"`data.path` must hold what it held when the sweep in {self.path} began, but "
                f"{changed[0]} has changed. Choose another folder for the new data."
            )

    def table(self, runs: Iterable[SweepRun]) -> pa.Table | None:
        """The rows of all runs that are done, in order; None if there is none."""
        files = [self.result_file(run.name) for run in runs]
        tables = [pq.read_table(file) for file in files if file.is_file()]
        return pa.concat_tables(tables) if tables else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[IO[bytes]]:
        """Keeps a second sweep out; workers that inherit the file keep the lock until they end.

        Raises:
            ValueError: if another sweep works here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("wb") as file:
            end = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise ValueError(
                            f"`--out` must be a folder that no other sweep works in, but "
                            f"{self.path} is in use. Wait for it, or choose another one."
                        ) from None
                time.sleep(0.1)
            yield file
