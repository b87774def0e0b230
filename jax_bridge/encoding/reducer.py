"""`Reducer`: recorded episodes to sums by task or by episode; no sample is kept."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from jax_bridge.demos.placing import PlacedEpisode
from jax_bridge.encoding.encoder import chosen_episodes
from jax_bridge.encoding.frame_calls import encoded_frames
from jax_bridge.encoding.moments import FILE, GroupSums, resume_moments, save_moments
from jax_bridge.encoding.plan import EncodePlan, EncodeReport, Watcher, dataset_info
from jax_bridge.episodes import EpisodeInfo, EpisodeReadError, open_episode
from jax_bridge.policies.policy import Policy

By = Literal["task", "episode"]
SAVED_EVERY = 20
"""Episodes between two savings; a run that is stopped repeats at most so many."""


class Reducer:
    """Adds up the latents of recorded episodes; goes on from what was saved."""

    def __init__(
        self, episodes: Sequence[EpisodeInfo], policy: Policy, plan: EncodePlan, *, by: By
    ) -> None:
        """Chooses the episodes.

        Raises:
            ValueError: if no frame is chosen, or an episode has no instruction.
        """
        self._policy, self._plan, self._by = policy, plan, by
        self._placed = chosen_episodes(episodes, plan)
        self._groups: dict[str, tuple[dict[str, Any], GroupSums]] = {}
        self._done: list[str] = []

    @property
    def total(self) -> int:
        """How many episodes there are."""
        return len(self._placed)

    def run(self, path: str, watcher: Watcher, *, staging: str | None = None) -> EncodeReport:
        """Adds all episodes up in the folder `path`.

        Raises:
            ValueError: if sums of something else are there, or `path` is an address.
            OSError: if the disk is full; what was saved stays whole.
        """
        if staging is not None or "://" in path:
            raise ValueError(f"`out` must be a folder with --reduce, but got {path}.")
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        report = EncodeReport()
        self._resume(folder)
        todo = [placed for placed in self._placed if _key(placed) not in self._done]
        report.skipped = len(self._placed) - len(todo)
        watcher.update(report)
        try:
            for number, placed in enumerate(todo, start=1):
                self._episode(placed, report)
                watcher.update(report)
                if number % SAVED_EVERY == 0:
                    self._save(folder)
        finally:
            if report.episodes:
                self._save(folder)
        return report

    def _notes(self) -> dict[str, Any]:
        info = dataset_info(self._placed, self._policy, self._plan)
        return {"by": self._by, "fingerprint": info.fingerprint, **info.to_json()}

    def _resume(self, folder: pathlib.Path) -> None:
        fields = self._policy.fields(self._plan.capture)
        if not (folder / FILE).exists():
            return
        self._groups, notes = resume_moments(folder, fields)
        mine = self._notes()
        for name in ("by", "fingerprint"):
            if notes[name] != mine[name]:
                raise ValueError(
                    f"`out` must be a new folder or one of the same files and settings, but "
                    f"{folder} has another {name}. Choose another folder, or the old settings."
                )
        self._done = notes["episodes_done"]

    def _save(self, folder: pathlib.Path) -> None:
        save_moments(folder, self._groups, {**self._notes(), "episodes_done": self._done})

    def _episode(self, placed: PlacedEpisode, report: EncodeReport) -> None:
        """Adds one episode, or nothing of it."""
        alone = GroupSums(self._policy.fields(self._plan.capture))
        try:
            with contextlib.closing(self._latents(placed)) as latents:
                for sample in latents:
                    alone.add(sample)
        except EpisodeReadError as error:
            report.errors.append(str(error))
            return
        key, about = self._group(placed)
        _, group = self._groups.setdefault(key, (about, GroupSums(alone.fields)))
        group.merge(alone)
        self._done.append(_key(placed))
        report.episodes += 1
        report.samples += alone.samples

    def _latents(self, placed: PlacedEpisode) -> Any:
        with open_episode(placed.info) as reader:
            for frame in encoded_frames(self._policy, self._plan, placed, reader):
                yield frame.output.latents

    def _group(self, placed: PlacedEpisode) -> tuple[str, dict[str, Any]]:
        about: dict[str, Any] = {
            "suite": self._plan.suite,
            "task_id": placed.task_id,
            "task_name": placed.instruction,
        }
        if self._by == "task":
            return f"t{placed.task_id}", about
        about |= {"episode": placed.number, "success": placed.info.success, "source": placed.source}
        return _key(placed), about


def _key(placed: PlacedEpisode) -> str:
    return f"t{placed.task_id}-e{placed.number}"
