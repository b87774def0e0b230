"""Batches that wait on the device while it computes: reading and copying cost the step nothing."""

import queue
import threading
import time
from typing import Any, NamedTuple

import jax

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.sharding import batch_shardings
from jax_bridge.ki.training.stream import BatchStream, HostBatch


class Fetched(NamedTuple):
    """A batch on the device."""

    host: HostBatch
    """The batch as it was read; its arrays are not the device's."""
    batch: TrainingBatch
    waited: float
    """Seconds that the training stood still for it."""


class Prefetcher:
    """Reads ahead in a thread.

    Args:
        stream: what is read; nobody else may read it meanwhile.
        mesh: the devices.
        size: batches that wait.
    """

    def __init__(self, stream: BatchStream, mesh: jax.sharding.Mesh, size: int) -> None:
        self._stream, self._mesh = stream, mesh
        self._ready: queue.Queue[Any] = queue.Queue(size)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        while self._thread.is_alive():  # it may wait for room
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def __next__(self) -> Fetched:
        """The next batch.

        Raises:
            Exception: whatever the stream raised.
        """
        begin = time.perf_counter()
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        host, batch = found
        return Fetched(host, batch, time.perf_counter() - begin)

    def _work(self) -> None:
        while not self._done.is_set():
            try:
                host = next(self._stream)
                item: Any = (host, place_batch(host.batch, self._mesh))
            except BaseException as error:
                item = error
            self._ready.put(item)
            if isinstance(item, BaseException):
                return


def place_batch(batch: TrainingBatch, mesh: jax.sharding.Mesh) -> TrainingBatch:
    """This process's rows as its part of an array over all devices."""
    return jax.tree.map(
        lambda rows, place: jax.make_array_from_process_local_data(place, rows),
        batch,
        batch_shardings(batch, mesh),
    )
