"""What is known of each recorded episode, without decoding a frame."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jax_bridge.episodes import EpisodeInfo, EpisodeReadError, Survey, open_episode
from lightning_modules.recordings.action_sums import ActionSums
from lightning_modules.recordings.movement import Movement, movement_of

OnEpisode = Callable[[int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeFacts:
    """One episode, in about a kilobyte."""

    name: str
    """File and place in it."""
    length: int
    instruction: str | None
    success: bool | None
    action_dim: int
    layout: str
    cameras: tuple[str, ...]
    """Name and size: `base 128x128`."""
    attributes: dict[str, Any]
    movement: Movement

    @classmethod
    def of(cls, info: EpisodeInfo, movement: Movement) -> "EpisodeFacts":
        """What a survey says, and how the episode moves."""
        cameras = tuple(f"{c.name} {c.height}x{c.width}" for c in info.cameras)
        return cls(
            name=info.source, length=info.length, instruction=info.instruction,
            success=info.success, action_dim=info.action_dim, layout=info.layout,
            cameras=cameras, attributes=dict(info.attributes), movement=movement,
        )  # fmt: skip


class Recordings:
    """All episodes of a survey, and the statistics of their actions.

    Args:
        found: what there is.
        on_episode: told how many more episodes were read.
    """

    def __init__(self, found: Survey, on_episode: OnEpisode | None = None) -> None:
        self.files = found.files
        self.skipped: dict[str, str] = {
            f"{s.path}:{s.place}" if s.place else s.path: s.reason for s in found.skipped
        }
        self.actions: dict[int, ActionSums] = {}
        """By the size of an action: robots of different kinds are not mixed."""
        self.episodes: list[EpisodeFacts] = list(self._read(found, on_episode))
        if not self.episodes:
            reasons = "; ".join(f"{n}: {why}" for n, why in list(self.skipped.items())[:3])
            raise ValueError(
                f"`files` must hold an episode that can be read, but got none ({reasons})."
            )

    def _read(self, found: Survey, on_episode: OnEpisode | None) -> Iterator[EpisodeFacts]:
        for info in found.episodes:
            try:
                with open_episode(info) as episode:
                    actions = episode.actions()
            except EpisodeReadError as error:
                self.skipped[info.source] = str(error)
            else:
                sums = self.actions.setdefault(info.action_dim, ActionSums(info.action_dim))
                sums.add(actions)
                yield EpisodeFacts.of(info, movement_of(actions, info.layout))
            if on_episode is not None:
                on_episode(1)
