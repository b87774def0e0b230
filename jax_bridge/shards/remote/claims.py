"""Claims: two machines that finish the same episode never both make it visible.

An address has no lock. So who is about to make a shard visible first writes a small object that
names its episodes, then looks whether others claim one of them, or have finished it. Of two that
claim at the same time at least one sees the other, since each writes before it looks; who sees
another one steps back and tries again after a while. This needs only that a listing shows what
was written before, as S3 and GCS promise.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Collection, Mapping

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.remote.store import ObjectInfo, RemoteStore
from jax_bridge.shards.sample_key import EpisodeId

CLAIM = ".claim-"
FRESH_SECONDS = 20.0
"""A claim that is older is made anew before anything becomes visible."""
DEAD_SECONDS = 120.0
"""A claim of others that did not change for so long is of somebody who was stopped."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before another attempt."""


class Claims:
    """The claims of one machine at one address; only one at a time.

    Args:
        store: the address.
        machine: a name that no other machine has.
    """

    def __init__(self, store: RemoteStore, machine: str) -> None:
        self._store = store
        self._own = f"{CLAIM}{machine}"
        self._seen: dict[tuple[str, str], float] = {}
        """When a claim of others was seen first, by name and stamp."""

    def publish(
        self,
        episodes: Collection[EpisodeId],
        *,
        look: Callable[[Collection[str]], bool],
        show: Callable[[], None],
    ) -> bool:
        """Calls `show` while nobody else can make one of the episodes visible.

        Args:
            episodes: what is to become visible.
            look: whether none of them is visible yet, by what was listed after the claim.
            show: makes them visible.

        Returns:
            False where some are visible already; `show` was not called then.

        Raises:
            OSError: if the address refuses.
        """
        wait = FIRST_WAIT
        while True:
            start = time.monotonic()
            # Another text each time: others see by it that this machine is alive.
            text = {"episodes": sorted(episodes), "attempt": uuid.uuid4().hex}
            self._store.write(f"shards/{self._own}", canonical_json(text).encode())
            try:
                listed = self._store.listing("shards")
                if not self._rivals(episodes, listed):
                    if not look(listed):
                        return False
                    if time.monotonic() - start < FRESH_SECONDS:
                        show()
                        return True
            finally:
                self._store.remove(f"shards/{self._own}")
            time.sleep(random.uniform(0.5, 1) * wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def withdraw(self) -> None:
        """Removes what this machine left when it was stopped."""
        if self._own in self._store.names("shards"):
            self._store.remove(f"shards/{self._own}")

    def _rivals(
        self, episodes: Collection[EpisodeId], listed: Mapping[str, ObjectInfo]
    ) -> list[str]:
        """Other machines' claims of these episodes."""
        now = time.monotonic()
        rivals: list[str] = []
        for name, about in listed.items():
            if not name.startswith(CLAIM) or name == self._own:
                continue
            since = self._seen.setdefault((name, about.stamp), now)
            claimed = self._claimed(name)
            if claimed is not None and not claimed & set(episodes):
                continue
            if now - since > DEAD_SECONDS:
                self._store.remove(f"shards/{name}")
            else:
                rivals.append(name)
        return rivals

    def _claimed(self, name: str) -> set[EpisodeId] | None:
        """None where the claim has ended since it was listed: that list is out of date."""
        try:
            entries = json.loads(self._store.read(f"shards/{name}"))["episodes"]
            return {EpisodeId(*entry) for entry in entries}
        except FileNotFoundError:
            return None
        except (ValueError, LookupError, TypeError):
            return set()
