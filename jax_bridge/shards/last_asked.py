"""What was read of the last rows, so that the same can be fetched of the next ones."""

import threading
from typing import NamedTuple

from jax_bridge.shards.projection import Projection


class Asked(NamedTuple):
    """What is read of a row."""

    suffix: str
    name: str
    projection: Projection

    @property
    def bytes(self) -> int:
        """Of one row."""
        return self.projection.run_bytes * len(self.projection.offsets)


class LastAsked:
    """Keeps what was asked for since `all` was looked at; can be used from several threads.

    What was read long ago (another layer, say) is not fetched again, and a field of which each
    batch reads several parts is fetched whole.
    """

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str, bytes], Asked] = {}
        self._looked_at = False
        self._lock = threading.Lock()

    def note(self, asked: Asked) -> None:
        """Remembers it."""
        with self._lock:
            if self._looked_at:
                self._asked, self._looked_at = {}, False
            self._asked[(asked.suffix, asked.name, asked.projection.offsets.tobytes())] = asked

    def all(self) -> list[Asked]:
        """What was read last, in the order of reading."""
        with self._lock:
            self._looked_at = True
            return list(self._asked.values())
