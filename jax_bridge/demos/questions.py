"""Questions with answers about the frames of a data set, from the simulator's recorded truth.

One sample a question: the frame's pictures, the question as its `instruction`, and `answer`.
Episodes keep their names, so that the same ones are held out here and there; `timestep` counts the
questions of an episode, and `frame` is the environment step of the pictures.
"""

import dataclasses
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_bridge.environments.question import Question, Questioner
from jax_bridge.environments.registry import QUESTIONERS
from jax_bridge.shards import DatasetInfo, EpisodeId, EpisodeWriter, ImageFormat, ShardDataset
from jax_bridge.shards.open_writer import open_writer
from jax_bridge.shards.sample_choice import SampleChoice, cameras_of
from jax_bridge.shards.stable_hash import stable_hash

ENTRY = "questions"
TRIES = 20
"""Draws for one question before a frame is taken to have no more."""
_COLUMNS = ("key", "timestep", "task_name", "task_instruction", "seed", "truth")
OnEpisode = Callable[[int], None]
"""Told how many episodes were done since it was told last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionPlan:
    """What is asked."""

    per_frame: int = 2
    """Different questions about a frame, at most."""
    stride: int = 5
    """Every how many recorded frames of an episode one is asked about."""
    kinds: tuple[str, ...] | None = None
    """Kinds of questions; None: those that the simulator asks by default."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        for name in ("per_frame", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, but got {self.seed}.")


class Asked(NamedTuple):
    """What a run did."""

    episodes: int
    skipped: int
    """Episodes that were there already."""
    kinds: Mapping[str, int]
    """Questions of each kind that were written."""


class QuestionWriter:
    """Writes questions about a data set; what is committed already is skipped.

    Args:
        dataset: what is asked about.
        plan: what is asked.

    Raises:
        ValueError: if nobody can ask about this simulator, or pictures or truth are missing.
    """

    def __init__(self, dataset: ShardDataset, plan: QuestionPlan) -> None:
        self._dataset, self._plan = dataset, plan
        self._questioner = _recorded_questioner(dataset, plan.kinds)
        self._cameras = cameras_of(dataset)
        without = dataset.index.column("truth").null_count
        if not self._cameras or without:
            missing = f"truth in {without:,} of {len(dataset):,} samples"
            raise ValueError(
                "`dataset` must hold pictures and the simulator's truth, but "
                f"{dataset.path} has no {missing if self._cameras else 'pictures'}. Record it with "
                "`vla-lens collect --record demos`."
            )
        groups = dataset.index.groups(EpisodeId._fields)
        order = np.argsort(groups.of_row, kind="stable")
        bounds = np.flatnonzero(np.diff(groups.of_row[order])) + 1
        rows = np.split(order, bounds)
        self._episodes = {EpisodeId(*groups.names[groups.of_row[own[0]]]): own for own in rows}

    @property
    def total(self) -> int:
        """Episodes."""
        return len(self._episodes)

    def info(self) -> DatasetInfo:
        """What `dataset.json` says."""
        name = self._dataset.info.environment["name"]
        entry = {**dataclasses.asdict(self._plan), "about": self._dataset.fingerprint}
        return DatasetInfo(
            fields={}, capture={}, model={}, environment={"name": name, ENTRY: entry},
            seed=self._plan.seed,
        )  # fmt: skip

    def run(self, path: str, on_episode: OnEpisode = lambda _: None) -> Asked:
        """Writes all questions into the data set at `path`.

        Raises:
            ValueError: if another data set is there.
            OSError: if it cannot be written; what is committed stays whole.
        """
        kinds: dict[str, int] = {}
        lossless = any(n.endswith(".png.offset") for n in self._dataset.index.column_names)
        form = ImageFormat(kind="png" if lossless else "jpg")
        with open_writer(path, self.info(), images=form) as writer:
            todo = [key for key in self._episodes if key not in writer.committed]
            on_episode(self.total - len(todo))
            for key in todo:
                for question in self._episode(writer, key):
                    kinds[question.kind] = kinds.get(question.kind, 0) + 1
                on_episode(1)
        return Asked(len(todo), self.total - len(todo), dict(sorted(kinds.items())))

    def _episode(self, writer: EpisodeWriter, key: EpisodeId) -> list[Question]:
        rows = self._episodes[key][:: self._plan.stride]
        table = self._dataset.index.select(list(_COLUMNS)).take(rows).to_pylist()
        choice, told = SampleChoice(images=self._cameras), table[0]
        asked: list[Question] = []
        with writer.episode(
            suite=key.suite, task_id=key.task_id, episode=key.episode,
            task_name=told["task_name"], task_instruction=told["task_instruction"],
            seed=told["seed"],
        ) as episode:  # fmt: skip
            for row, read in zip(table, choice.read(self._dataset, rows), strict=True):
                for question in self._questions(row):
                    episode.append(
                        timestep=len(asked), images=read["images"], instruction=question.words,
                        extra={
                            "answer": question.answer, "question": question.kind,
                            "frame": row["timestep"],
                        },
                    )  # fmt: skip
                    asked.append(question)
            episode.finish(success=None)
        return asked

    def _questions(self, row: Mapping[str, Any]) -> list[Question]:
        """Different questions about one frame: a pure function of seed and frame."""
        random = np.random.default_rng(stable_hash(ENTRY, self._plan.seed, row["key"]))
        return ask_about(self._questioner, json.loads(row["truth"]), self._plan.per_frame, random)


def ask_about(
    questioner: Questioner, truth: Mapping[str, Any], count: int, random: np.random.Generator
) -> list[Question]:
    """Different questions about one picture, fewer where there are no more."""
    found: dict[str, Question] = {}
    for _ in range(TRIES * count):
        question = questioner.ask(truth, random)
        found.setdefault(question.words, question)
        if len(found) == count:
            break
    return list(found.values())


def questioner_of(name: str, kinds: Sequence[str] | None = None) -> Questioner:
    """Who asks about a simulator.

    Args:
        name: of the simulator, or of its suite.
        kinds: of questions; None: those that it asks by default.

    Raises:
        ValueError: if nobody can ask about it, or no such kind is known.
    """
    if name not in QUESTIONERS:
        raise ValueError(
            f"The simulator must be one that can be asked about ({', '.join(QUESTIONERS)}), but "
            f"got {name!r}."
        )
    module, _, kind = QUESTIONERS[name].rpartition(".")
    return getattr(importlib.import_module(module), kind)(kinds)


def _recorded_questioner(dataset: ShardDataset, kinds: Sequence[str] | None) -> Questioner:
    name = dataset.info.environment.get("name")
    if name not in QUESTIONERS:
        raise ValueError(
            f"`dataset` must be of a simulator that can be asked about ({', '.join(QUESTIONERS)}), "
            f"but {dataset.path} is of {name!r}."
        )
    return questioner_of(name, kinds)
