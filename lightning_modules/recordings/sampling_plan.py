"""Choosing episodes and frames: a share of every stratum, by a seed, each with its reason."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_bridge.shards.stable_hash import stable_hash
from lightning_modules.recordings.allocation import allocate
from lightning_modules.recordings.episode_facts import EpisodeFacts
from lightning_modules.recordings.strata import stratify

Label = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What is asked for."""

    by: tuple[str, ...]
    frames_per_episode: int = 5
    total: int = 500
    """Frames of all episodes together."""
    minimum: int = 0
    """Episodes of each stratum, at least."""
    maximum: int | None = None
    """Episodes of each stratum, at most."""
    seed: int = 0
    name_rule: str | None = None

    def __post_init__(self) -> None:
        for name in ("frames_per_episode", "total"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        if self.minimum < 0:
            raise ValueError(f"`minimum` must not be negative, but got {self.minimum}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChosenEpisode:
    """One line of the plan."""

    name: str
    stratum: Label
    frames: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """What was chosen, and why."""

    settings: PlanSettings
    sources: dict[str, str]
    available: dict[Label, int]
    allotted: dict[Label, int]
    chosen: list[ChosenEpisode]
    warnings: list[str]

    @property
    def frames(self) -> int:
        """Frames in all."""
        return sum(len(episode.frames) for episode in self.chosen)

    def to_json(self) -> dict[str, Any]:
        """The content of a plan file."""
        strata = [
            {"stratum": dict(zip(self.settings.by, s, strict=True)), "episodes": n,
             "chosen": self.allotted[s]}
            for s, n in self.available.items()
        ]  # fmt: skip
        episodes = [
            {"name": e.name, "stratum": list(e.stratum), "frames": list(e.frames),
             "reason": e.reason}
            for e in self.chosen
        ]  # fmt: skip
        return {
            "settings": dataclasses.asdict(self.settings), "sources": self.sources,
            "warnings": self.warnings, "strata": strata, "episodes": episodes,
        }  # fmt: skip


def make_plan(episodes: Sequence[EpisodeFacts], settings: PlanSettings) -> SamplingPlan:
    """Chooses episodes and frames.

    Raises:
        ValueError: if a stratum is unknown, or the bounds do not fit the total.
    """
    strata = stratify(episodes, settings.by, settings.name_rule)
    groups: dict[Label, list[EpisodeFacts]] = collections.defaultdict(list)
    for facts, label in sorted(
        zip(episodes, strata.labels, strict=True), key=lambda pair: (pair[1], pair[0].name)
    ):
        groups[label].append(facts)
    available = {label: len(group) for label, group in groups.items()}
    wanted = -(-settings.total // settings.frames_per_episode)
    allotted = allocate(
        available, wanted, minimum=settings.minimum, maximum=settings.maximum
    )  # fmt: skip
    chosen, left = [], settings.total
    for label, group in groups.items():
        for rank, facts in enumerate(_drawn(group, allotted[label], settings.seed), start=1):
            frames = spread(facts.length, min(settings.frames_per_episode, left))
            left -= len(frames)
            if frames:
                reason = _reason(label, settings, rank, allotted[label], len(group))
                chosen.append(
                    ChosenEpisode(name=facts.name, stratum=label, frames=frames, reason=reason)
                )
    warnings = [*strata.warnings, *_warnings(available, allotted, settings, left)]
    return SamplingPlan(
        settings=settings, sources=strata.sources, available=available, allotted=allotted,
        chosen=chosen, warnings=warnings,
    )  # fmt: skip


def _drawn(group: Sequence[EpisodeFacts], count: int, seed: int) -> list[EpisodeFacts]:
    """Some episodes by lot; which lot an episode has does not depend on the others."""
    return sorted(group, key=lambda facts: stable_hash(seed, Path(facts.name).name))[:count]


def spread(length: int, count: int) -> tuple[int, ...]:
    """The middles of `count` equal parts of an episode; all frames where there are fewer."""
    if length <= count:
        return tuple(range(length))
    return tuple((2 * i + 1) * length // (2 * count) for i in range(count))


def _reason(label: Label, settings: PlanSettings, rank: int, allotted: int, there: int) -> str:
    words = ", ".join(f"{w} {v}" for w, v in zip(settings.by, label, strict=True))
    return f"{words}: {rank} of {allotted} drawn from {there} by seed {settings.seed}"


def _warnings(
    available: dict[Label, int], allotted: dict[Label, int], settings: PlanSettings, left: int
) -> list[str]:
    found = []
    if left > 0:
        found.append(
            f"{settings.total - left} of {settings.total} frames: there are too few episodes, or "
            "they are too short, for more"
        )
    without = [label for label, count in allotted.items() if not count]
    if without:
        found.append(
            f"{len(without)} of {len(allotted)} strata give no episode, as {' / '.join(without[0])}"
            "; `--min 1` takes one of each"
        )
    scarce = [label for label, count in available.items() if count < settings.minimum]
    if scarce:
        found.append(
            f"{len(scarce)} strata have fewer than {settings.minimum} episodes, as "
            f"{' / '.join(scarce[0])}"
        )
    return found
