"""Simulators in processes of their own, as one object that is told and asked by slot."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
import types
from collections.abc import Collection

import numpy as np

from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.simulator_process import (
    Act,
    Begin,
    MakeEnvironment,
    Reply,
)

_PROGRAM = "from jax_bridge.rollouts.simulator_process import run_process; run_process"
SECONDS_TO_END = 5.0
"""Given to a process that shall end, before it is killed."""


class Worker:
    """One process, and the slots whose simulators it holds.

    A fresh interpreter, not a fork: jax runs threads here, which a fork would not survive. It does
    not import the caller's main module either, which may import jax.
    """

    def __init__(self, make_environment: MakeEnvironment, protocol: RolloutProtocol) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{_PROGRAM}({number})"],
            pass_fds=[number],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this side to judge
        )
        theirs.close()
        self.connection.send((make_environment, protocol))

    def ended(self) -> int:
        """Waits for the end of a process that closed its connection; returns its exit code."""
        return self.process.wait()

    def close(self) -> None:
        """Ends the process."""
        self.connection.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class SimulatorPool:
    """Runs `slots` simulators in `workers` processes; slot s always lives in process s mod n.

    A process that dies ends the episodes of its slots and is started again.
    """

    def __init__(
        self,
        make_environment: MakeEnvironment,
        protocol: RolloutProtocol,
        *,
        slots: int,
        workers: int,
    ) -> None:
        self._make, self._protocol = make_environment, protocol
        self._workers = [Worker(make_environment, protocol) for _ in range(min(workers, slots))]
        self._busy: set[int] = set()
        """Slots in which an episode runs."""
        self._owed: set[int] = set()
        """Slots that were told something and have not replied."""
        self._dead: dict[int, str] = {}
        """Slots whose simulator died while nobody waited for them, with the reason."""

    def begin(self, slot: int, *, task_id: int, episode: int) -> None:
        """Starts an episode."""
        self._busy.add(slot)
        self._tell(Begin(slot=slot, task_id=task_id, episode=episode))

    def act(self, slot: int, actions: np.ndarray) -> None:
        """Answers the request of a slot."""
        self._tell(Act(slot=slot, actions=actions))

    def gather(self, required: Collection[int]) -> list[Reply]:
        """What slots reply, by slot; waits for the required ones, and for one at least."""
        replies = [Reply(slot=slot, failure=reason) for slot, reason in self._dead.items()]
        self._owed -= set(self._dead)
        self._dead = {}
        while self._owed and (not replies or self._owed & set(required)):
            replies += self._received()
        for reply in replies:
            if reply.request is None:
                self._busy.discard(reply.slot)
        return sorted(replies, key=lambda reply: reply.slot)

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> "SimulatorPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def _tell(self, message: Begin | Act) -> None:
        self._owed.add(message.slot)
        if message.slot in self._dead:
            return
        worker = self._workers[message.slot % len(self._workers)]
        # A process that died shows when its reply is waited for.
        with contextlib.suppress(OSError):
            worker.connection.send(message)

    def _received(self) -> list[Reply]:
        by_connection = {worker.connection: n for n, worker in enumerate(self._workers)}
        replies = []
        for ready in multiprocessing.connection.wait(list(by_connection)):
            number = by_connection[ready]  # type: ignore[index]
            try:
                reply: Reply = self._workers[number].connection.recv()
                self._owed.discard(reply.slot)
                replies.append(reply)
            except (EOFError, OSError):
                replies += self._buried(number)
        return replies

    def _buried(self, number: int) -> list[Reply]:
        """Replaces a dead process; its slots' episodes failed."""
        code = self._workers[number].ended()
        reason = f"the simulator's process ended with exit code {code}"
        self._workers[number].close()
        self._workers[number] = Worker(self._make, self._protocol)
        mine = {slot for slot in self._busy if slot % len(self._workers) == number}
        owed = sorted(mine & self._owed)
        self._owed -= set(owed)
        self._dead |= dict.fromkeys(mine - set(owed), reason)
        return [Reply(slot=slot, failure=reason) for slot in owed]
