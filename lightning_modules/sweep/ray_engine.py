"""Groups as tasks of a Ray cluster, or of an instance of Ray on this machine."""

import contextlib
import math
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lightning_modules.sweep.plan import Group
from lightning_modules.sweep.schedule import Schedule

if TYPE_CHECKING:
    import ray

WAIT_SECONDS = 0.5
OBJECT_STORE = 128 * 2**20
"""Bytes of shared memory of an instance of our own: tasks pass names, not numbers."""
INSTALL = "Install it: pip install 'vla-lens[ray]'."


LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0 before Ray is imported, it binds Ray to 127.0.0.1 on any system."""


def import_ray() -> Any:
    """The package.

    Raises:
        ValueError: if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            f"`--engine` must be local where Ray is missing, but got ray ({error}). {INSTALL}"
        ) from error
    return ray


class RayEngine:
    """Connects on entering, and leaves on exit."""

    def __init__(
        self, run_group: Callable[[str, list[dict[str, Any]]], None], *, address: str | None,
        workers: int | None, cpus: float, gpus: float | None,
    ) -> None:  # fmt: skip
        """Describes the tasks.

        Args:
            run_group: runs a group, given the sweep's folder and the runs in plain types.
            address: of the cluster; `auto` is one that runs on this machine, `local` an instance
                of our own that nobody else can reach; by default what RAY_ADDRESS names, or local.
            workers: tasks at once at most; by default what the cluster has room for.
            cpus: a task's share of cores.
            gpus: a task's share of GPUs, such as 0.25; by default 1 where there is one.
        """
        self._run_group = run_group
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._given_workers = workers
        self._cpus = cpus
        self._gpus = gpus
        self.workers = 0

    def __enter__(self) -> "RayEngine":
        with contextlib.ExitStack() as closing:
            if self._address == "local":
                closing.callback(os.environ.pop, LOOPBACK, None)
                os.environ.setdefault(LOOPBACK, "0")
            self._ray = import_ray()
            self._connect()
            closing.callback(self._ray.shutdown)
            self._plan(self._ray.cluster_resources())
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _connect(self) -> None:
        quiet = {"log_to_driver": False, "configure_logging": False}
        if self._address == "local":
            cores = len(os.sched_getaffinity(0))
            wanted = cores if self._given_workers is None else self._given_workers * self._cpus
            self._ray.init(
                address="local", num_cpus=max(1, math.ceil(min(wanted, cores))),
                include_dashboard=False, object_store_memory=OBJECT_STORE,
                _node_ip_address="127.0.0.1", **quiet,
            )  # fmt: skip
            return
        try:
            self._ray.init(address=self._address, **quiet)
        except ConnectionError as error:
            raise ValueError(
                f"`--address` must be that of a Ray cluster, but {self._address} does not answer "
                f"({error}). Start one with `ray start --head`, or say --address local."
            ) from error

    def _plan(self, resources: dict[str, float]) -> None:
        """Works out each task's share, and how many tasks have room."""
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        self._share = min(1.0, gpus) if self._gpus is None else self._gpus
        for word, wanted, there in (("cpus", self._cpus, cpus), ("gpus", self._share, gpus)):
            if wanted > there:
                raise ValueError(
                    f"`--{word}` must be a share that the Ray cluster has, but got {wanted:g} of "
                    f"{there:g}. Ask for less, or start nodes that have it."
                )
        room = min(cpus / self._cpus, gpus / self._share if self._share else math.inf)
        self.workers = max(1, min(int(room), self._given_workers or int(room)))

    def run(self, schedule: Schedule, watch: Callable[[], None]) -> None:
        """Runs all groups; calls `watch` from time to time."""
        task = self._ray.remote(self._run_group).options(
            num_cpus=self._cpus, num_gpus=self._share, max_retries=0
        )
        folder = str(schedule.folder.path.resolve())
        running: dict[ray.ObjectRef, Group] = {}
        try:
            while True:
                while len(running) < self.workers and (group := schedule.take()) is not None:
                    running[task.remote(folder, [run.to_json() for run in group])] = group
                if not running:
                    break
                done, _ = self._ray.wait(list(running), timeout=WAIT_SECONDS)
                for reference in done:
                    group = running.pop(reference)
                    schedule.settle(group, self._reason(reference))
                watch()
        finally:
            schedule.stop()
            for reference in running:
                self._ray.cancel(reference, force=True)
        watch()

    def _reason(self, reference: Any) -> str | None:
        """Why a task died; None if it did not."""
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            return f"its Ray task ended with {error.cause!r}"
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            return f"its Ray task ended with {type(error).__name__}: {first}"
        return None
