"""The data sets of a mixture: demonstrations, and questions with answers."""

import dataclasses

from jax_bridge.demos.description import ENTRY, Demonstrations, demonstrations_of
from jax_bridge.fast.targets import FastTargets, open_fast_targets
from jax_bridge.ki.data.answers import ANSWER, QUESTION, check_questions, has_answers
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.fitting import check_demonstrations, check_targets, chosen_statistics
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.policies.conventions import Convention
from jax_bridge.policies.normalisation import NormStats, load_norm_stats
from jax_bridge.shards import ShardDataset, open_dataset
from jax_bridge.shards.sample_choice import SampleChoice, cameras_of
from jax_bridge.vocabulary import CAMERAS


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OpenedSets:
    """What a mixture is made of."""

    datasets: list[ShardDataset]
    sizes: dict[int, Demonstrations]
    """Of the robot's data, by the data set's number; the others hold questions with answers."""
    targets: dict[int, FastTargets]
    """Of the robot's data, where tokens are learnt."""
    statistics: NormStats | None
    """None where there are no demonstrations and nobody names some."""

    @property
    def questions(self) -> list[ShardDataset]:
        """Those that hold questions with answers."""
        return [own for number, own in enumerate(self.datasets) if number not in self.sizes]

    @property
    def fast(self) -> FastTargets | None:
        """Some FAST targets; all have the same tokenizer and statistics."""
        return next(iter(self.targets.values()), None)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras of the model that some data set has, in the model's order."""
        there = {name for number in range(len(self.datasets)) for name in self._cameras(number)}
        return tuple(camera.name for camera in CAMERAS if camera.name in there)

    def _cameras(self, number: int) -> tuple[str, ...]:
        sizes = self.sizes.get(number)
        return cameras_of(self.datasets[number]) if sizes is None else sizes.cameras

    def choices(self) -> list[SampleChoice]:
        """What is read of a sample of each data set.

        Raises:
            ValueError: if a data set lacks a part of it.
        """
        robot = ("state", "actions", "action_is_pad")
        made = []
        for number, dataset in enumerate(self.datasets):
            acts = number in self.sizes
            choice = SampleChoice(
                robot=robot if acts else (), images=self._cameras(number),
                metadata=(QUESTION,) if acts else (QUESTION, ANSWER),
            )  # fmt: skip
            choice.check(dataset)
            made.append(choice)
        return made


def open_sets(data: DataConfig, model: Pi0Config, convention: Convention, mode: str) -> OpenedSets:
    """Opens data sets, and FAST targets unless the mode is `flow_only`.

    Raises:
        FileNotFoundError: if a data set, its FAST targets or statistics are not there.
        ValueError: if something does not fit the model, the robot or the rest of the mixture.
    """
    if not data.datasets:
        raise ValueError("`data.paths` must name a data set. Add --data.paths DIR.")
    datasets = [open_dataset(path) for path in data.datasets]
    acts = [_holds_demonstrations(dataset) for dataset in datasets]
    sizes = {
        number: demonstrations_of(dataset.info, dataset.path)
        for number, dataset in enumerate(datasets)
        if acts[number]
    }
    for number, dataset in enumerate(datasets):
        if number in sizes:
            check_demonstrations(dataset, sizes[number], model, convention)
        else:
            check_questions(dataset, convention)
    if not sizes and mode == "flow_only":
        raise ValueError(
            "`objective.mode` must learn tokens where no robot acts, but got flow_only and only "
            "questions with answers. Choose insulate, joint or fast_only, or add demonstrations to "
            "`data.paths`."
        )
    robots = [datasets[number] for number in sizes]
    targets = {n: open_fast_targets(datasets[n]) for n in sizes} if mode != "flow_only" else {}
    check_targets(robots, list(sizes.values()), list(targets.values()))
    if sizes:
        statistics = chosen_statistics(data.norm_stats, robots, list(targets.values()))
    else:
        statistics = load_norm_stats(data.norm_stats) if data.norm_stats else None
    return OpenedSets(datasets=datasets, sizes=sizes, targets=targets, statistics=statistics)


def _holds_demonstrations(dataset: ShardDataset) -> bool:
    """Whether a robot acts in a data set.

    Raises:
        ValueError: if it holds neither demonstrations nor answers, or both.
    """
    acts, says = ENTRY in dataset.info.environment, has_answers(dataset)
    if acts == says:
        found = "both" if acts else "neither"
        raise ValueError(
            "`data.paths` must name demonstrations with action chunks, or vision-language data "
            f"with an `answer` in each sample's metadata, but {dataset.path} has {found}. "
            "`vla-lens demos`, `collect --record demos` and `vla-lens questions` make such data."
        )
    return acts
