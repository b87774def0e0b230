"""What can be wrong with a data set, each with its own exception."""

import functools
from typing import Any


class DamagedShardError(ValueError):
    """A place in a shard does not hold what it should; the message names the place."""

    def __init__(
        self,
        reason: str,
        *,
        shard: str,
        key: str | None = None,
        member: str | None = None,
        offset: int | None = None,
    ) -> None:
        self.reason, self.shard, self.key, self.member, self.offset = (
            reason,
            shard,
            key,
            member,
            offset,
        )
        places = (("key", key), ("member", member), ("offset", offset))
        where = "".join(f", {word} {value}" for word, value in places if value is not None)
        super().__init__(f"Shard {shard}{where}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        places = {"key": self.key, "member": self.member, "offset": self.offset}
        make = functools.partial(type(self), self.reason, shard=self.shard, **places)
        return make, ()


class FingerprintError(ValueError):
    """The folder holds a data set that was made in another way."""


class ShardWriteError(OSError):
    """The operating system refused a write: full disk, read-only folder, vanished mount."""
