"""Questions about scenes that nobody acted in: vision-language data straight from a simulator.

One sample a question, as in `jax_bridge.demos.questions`; an episode of the data set holds many
scenes, so that a scene costs no file of its own, and `frame` is the scene's number.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jax_bridge.demos.questions import ENTRY, Asked, OnEpisode, ask_about, questioner_of
from jax_bridge.environments.environment import Environment
from jax_bridge.environments.question import Question, Scattered
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ImageFormat
from jax_bridge.shards.open_writer import open_writer

SCENES_PER_EPISODE = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScenePlan:
    """What is asked about which scenes."""

    scenes: int
    """How many; rounded up to whole episodes of `SCENES_PER_EPISODE`."""
    per_scene: int = 1
    """Different questions about a scene, at most."""
    kinds: tuple[str, ...] | None = None
    """Kinds of questions; None: those that the simulator asks by default."""
    cameras: tuple[str, ...] | None = None
    """Whose pictures are written; None: of all."""
    seed: int = 0
    """Of scenes and draws."""

    def __post_init__(self) -> None:
        for name in ("scenes", "per_scene"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, but got {self.seed}.")


class SceneQuestionWriter:
    """Writes questions about scenes; episodes that are committed already are skipped.

    Args:
        environment: what shows the scenes.
        plan: how many, and what is asked.

    Raises:
        ValueError: if the simulator shows no scenes, or knows no such question or camera.
    """

    def __init__(self, environment: Environment, plan: ScenePlan) -> None:
        if not isinstance(environment, Scattered):
            raise ValueError(
                "`env` must be a simulator that shows scenes (tabletop), but got "
                f"{environment.suite!r}. Ask about recorded pictures: `vla-lens questions DATASET`."
            )
        self._environment, self._plan = environment, plan
        self._questioner = questioner_of(environment.suite, plan.kinds)
        known = environment.describe()["cameras"]
        if unknown := sorted(set(plan.cameras or ()) - set(known)):
            raise ValueError(
                f"`cameras` must be some of {', '.join(known)}, but got {', '.join(unknown)}."
            )
        self._cameras = plan.cameras or tuple(known)

    @property
    def total(self) -> int:
        """Episodes."""
        return -(-self._plan.scenes // SCENES_PER_EPISODE)

    def info(self) -> DatasetInfo:
        """What `dataset.json` says; more scenes of the same kind may be added later."""
        described = dict(self._environment.describe())
        plan = dataclasses.asdict(self._plan)
        entry = {name: plan[name] for name in ("per_scene", "kinds")}
        described["cameras"] = list(self._cameras)
        return DatasetInfo(
            fields={}, capture={}, model={}, environment={**described, ENTRY: entry},
            seed=self._plan.seed,
        )  # fmt: skip

    def run(self, path: str, on_episode: OnEpisode = lambda _: None) -> Asked:
        """Writes all questions into the data set at `path`.

        Raises:
            ValueError: if another data set is there.
            OSError: if it cannot be written; what is committed stays whole.
        """
        kinds: dict[str, int] = {}
        with open_writer(path, self.info(), images=ImageFormat(kind="png")) as writer:
            there = {episode for _, _, episode in writer.committed}
            todo = [episode for episode in range(self.total) if episode not in there]
            on_episode(self.total - len(todo))
            for episode in todo:
                for question in self._episode(writer, episode):
                    kinds[question.kind] = kinds.get(question.kind, 0) + 1
                on_episode(1)
        return Asked(len(todo), self.total - len(todo), dict(sorted(kinds.items())))

    def _episode(self, writer: EpisodeWriter, number: int) -> Iterator[Question]:
        first = number * SCENES_PER_EPISODE
        suite, count = self._environment.suite, 0
        with writer.episode(
            suite=f"{suite}_scenes", task_id=0, episode=number, seed=self._plan.seed
        ) as episode:
            for scene in range(first, first + SCENES_PER_EPISODE):
                self._environment.scatter(episode=scene, seed=self._plan.seed)
                seen, truth = self._environment.observe().images, self._environment.truth()
                images = {camera: seen[camera] for camera in self._cameras}
                random = np.random.default_rng([self._plan.seed, scene])
                for question in ask_about(self._questioner, truth, self._plan.per_scene, random):
                    episode.append(
                        timestep=count, images=images, instruction=question.words,
                        extra={
                            "answer": question.answer, "question": question.kind, "frame": scene,
                        },
                    )  # fmt: skip
                    count += 1
                    yield question
            episode.finish(success=None)
