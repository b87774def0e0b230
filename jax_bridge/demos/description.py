"""What `dataset.json` says of demonstrations, so that a trainer can refuse what does not fit."""

import dataclasses
from typing import Any

from jax_bridge.shards import DatasetInfo

ENTRY = "demonstrations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Sizes of every sample."""

    horizon: int
    """Actions a chunk."""
    action_dim: int
    state_dim: int | None
    """None where the robot's state was not recorded."""
    cameras: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The entry; actions are absolute, in robot units."""
        return {**dataclasses.asdict(self), "cameras": list(self.cameras), "actions": "absolute"}


def demonstrations_of(info: DatasetInfo, path: object) -> Demonstrations:
    """What a data set says of its demonstrations.

    Raises:
        ValueError: if it has none.
    """
    entry = info.environment.get(ENTRY)
    if not isinstance(entry, dict):
        raise ValueError(
            f"`dataset` must hold demonstrations with action chunks, but {path} holds rollouts. "
            "Make one with `vla-lens demos`, or with `vla-lens collect --drive demonstrator "
            "--record demos`."
        )
    return Demonstrations(
        horizon=int(entry["horizon"]), action_dim=int(entry["action_dim"]),
        state_dim=None if entry["state_dim"] is None else int(entry["state_dim"]),
        cameras=tuple(entry["cameras"]),
    )  # fmt: skip
