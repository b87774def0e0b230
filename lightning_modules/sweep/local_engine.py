"""Groups on this machine: as many processes as there are devices, each with its share of cores."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

from lightning_modules.sweep.plan import Group
from lightning_modules.sweep.schedule import Schedule

WATCH_SECONDS = 0.2
READY, DONE = b"ready\n", b"done\n"
"""What a worker answers: once it has started, and after each group."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environments(workers: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """What to set for each worker, so that together they use each core and device once.

    Args:
        workers: how many there are.
        devices: names of the GPUs, as CUDA_VISIBLE_DEVICES lists them; may be empty.
    """
    cores = len(os.sched_getaffinity(0))
    threads = {name: str(max(1, cores // workers)) for name in THREADS}
    given = {name: os.environ[name] for name in THREADS if name in os.environ}
    return [
        {**threads, **given}
        | ({"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {})
        for place in range(workers)
    ]


class Worker:
    """A process that runs the groups it is told, one after the other."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, lock: IO[bytes]
    ) -> None:
        """Starts it.

        Args:
            command: of a program that answers `READY`, and `DONE` to each line of its input.
            environment: what to set.
            log: file for what it prints.
            lock: it keeps this file open, so that nobody takes the folder while it runs.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                env={**os.environ, **environment}, pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which ends its workers
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout

    def ready(self) -> bool:
        """Waits until it has started; False if it died."""
        return self._output.readline() == READY

    def run(self, group: Group) -> str | None:
        """Runs a group; returns why the worker died, None if it did not."""
        line = json.dumps([run.to_json() for run in group])
        try:
            self._input.write(line.encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            return self.death()
        return None if self._output.readline() == DONE else self.death()

    def death(self) -> str:
        """How it ended, in words."""
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return f"its process ended with {how}{memory}; see {self.log}"

    def kill(self) -> None:
        """Ends it with all processes that it started; who waits for its answer gets none."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Closes the pipes, once nobody reads them any more."""
        self._output.close()
        with contextlib.suppress(BrokenPipeError):  # what could not be written any more
            self._input.close()


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(
        self, command: Sequence[str], *, slots: Sequence[Mapping[str, str]], lock: IO[bytes]
    ) -> None:
        """Plans the workers; they start with the first groups.

        Args:
            command: of the worker program; the sweep's folder follows it.
            slots: what to set in the environment of each.
            lock: of the sweep's folder.
        """
        self._command = command
        self._slots = slots
        self._lock = lock
        self._workers: list[Worker] = []
        """All that were ever started."""
        self._changing = threading.Lock()
        self._stopped = False
        self.workers = len(slots)

    def run(self, schedule: Schedule, watch: Callable[[], None]) -> None:
        """Runs all groups; calls `watch` from time to time.

        Raises:
            OSError: if a worker cannot start.
        """
        try:
            with ThreadPoolExecutor(self.workers) as pool:
                try:
                    self._watch([pool.submit(self._serve, place, schedule)
                                 for place in range(self.workers)], watch)  # fmt: skip
                finally:
                    schedule.stop()
                    self._kill_all()
        finally:
            for worker in self._workers:
                worker.close()
        watch()

    def _watch(self, serving: list[Future[None]], watch: Callable[[], None]) -> None:
        while serving:
            watch()
            done, _ = wait(serving, timeout=WATCH_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                serving.remove(future)

    def _serve(self, place: int, schedule: Schedule) -> None:
        worker = None
        while (group := schedule.take()) is not None:
            worker = worker or self._start(place, schedule)
            if worker is None:
                return
            reason = worker.run(group)
            if reason is not None:
                worker.kill()
                worker = None
            schedule.settle(group, reason)

    def _start(self, place: int, schedule: Schedule) -> Worker | None:
        log = schedule.folder.path / "logs" / f"worker_{place}.log"
        command = [*self._command, str(schedule.folder.path)]
        with self._changing:
            if self._stopped:
                return None
            worker = Worker(command, self._slots[place], log, self._lock)
            self._workers.append(worker)
        if not worker.ready() and not self._stopped:
            raise OSError(f"`workers` must be able to start, but one did not: {worker.death()}.")
        return worker

    def _kill_all(self) -> None:
        with self._changing:
            self._stopped = True
            for worker in self._workers:
                worker.kill()
