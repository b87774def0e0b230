"""What a sweep runs: the grid of its axes, cut into groups that share a stream.

A run is one fit and its test. Its name holds a digest of its whole configuration, so that a run
that is done is known again in a file with more settings, and never mistaken for another.
"""

import copy
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Options = dict[str, Any]
"""Values by dotted option of `vla-lens fit`: data.target."""
Axis = list[Options]
"""The settings of an axis, one after the other."""

STREAM = (
    "path", "expert", "site", "region", "pool", "layer", "flow_time", "fields", "control_data",
    "rollout_step", "suite", "task_range", "episode_range",
)  # fmt: skip
"""Options of the data that say which numbers are read; runs that share them share a stream."""
ASKED = ("target", "encoder", "whiten")
"""Options of the data that say what is asked of the numbers; the batches are the same."""
OWN = ("out", "ckpt_path", "config", "c")
"""Options that a sweep gives itself."""
SEEDS = ("data.seed", "model.seed", "seed_everything")
NAME_CHARACTERS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One fit and its test."""

    name: str
    settings: Options
    """What the axes set, by dotted option."""
    config: dict[str, Any]
    """The whole configuration of the fit, nested."""

    @property
    def path(self) -> str:
        """The data set."""
        return str(self.config.get("data", {}).get("path"))

    @property
    def stream(self) -> str:
        """Equal for runs that read the same numbers."""
        data = self.config.get("data", {})
        return json.dumps({name: data.get(name) for name in STREAM}, sort_keys=True)

    @property
    def batches(self) -> str:
        """Equal for runs that ask for the same batches in the same order, and so read together.

        Worker processes of a data module read for it alone.
        """
        data = self.config.get("data", {})
        same = {name: value for name, value in data.items() if name not in ASKED}
        trainer = self.config.get("trainer", {})
        alone = self.name if data.get("num_workers") else ""
        return json.dumps([same, trainer, alone], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "SweepRun":
        """Reads what `to_json` wrote."""
        return cls(**entry)


Group = tuple[SweepRun, ...]


def flat(grid: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names for groups within groups, as `--grid.data.seed [0,1]` makes them."""
    result: dict[str, Any] = {}
    for name, value in grid.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        result |= inner or {f"{prefix}{name}": value}
    return result


def axes_of(grid: Mapping[str, Any]) -> list[Axis]:
    """The axes of a grid.

    Raises:
        ValueError: if there is none, one is no list of settings, or two set the same option.
    """
    if not grid:
        raise ValueError(
            "`grid` must hold at least one axis, but is empty. Write data.seed: [0, 1], or use "
            "`vla-lens fit` for a single run."
        )
    grid = flat(grid)
    axes = [_axis(name, values) for name, values in grid.items()]
    taken: dict[str, str] = {}
    for name, axis in zip(grid, axes, strict=True):
        for option in axis[0]:
            if option in taken:
                raise ValueError(
                    f"`grid` must set each option in one axis, but {option} stands in "
                    f"{taken[option]} and {name}. Leave it out of one."
                )
            taken[option] = name
    return axes


def _axis(name: str, values: Any) -> Axis:
    if not isinstance(values, list) or not values:
        raise ValueError(
            f"`grid` must hold a list of settings for each axis, but {name} has {values!r}. Write "
            f"{name}: [first, second]."
        )
    if not any(isinstance(value, dict) for value in values):
        return [{_option(name): value} for value in values]
    known = values[0].keys() if isinstance(values[0], dict) else ()
    for value in values:
        if not isinstance(value, dict) or not value or value.keys() != known:
            raise ValueError(
                f"`grid` must set the same options in all settings of an axis, but {name} holds "
                f"{value!r} beside {values[0]!r}. Write every option in each setting."
            )
        for option in value:
            _option(option)
    return values


def _option(name: str) -> str:
    parts = str(name).split(".")
    if not all(parts) or parts[0] in OWN:
        raise ValueError(
            f"`grid` must name options of `vla-lens fit` such as data.target, but got {name!r}. "
            "A sweep chooses the folders of its runs itself."
        )
    return str(name)


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `more`, group by group."""
    result = dict(copy.deepcopy(dict(base)))
    for name, value in more.items():
        inner = result.get(name)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[name] = merged(inner, value) if both else copy.deepcopy(value)  # pyright: ignore[reportArgumentType]
    return result


def nested(settings: Options) -> dict[str, Any]:
    """Dotted options as groups within groups."""
    result: dict[str, Any] = {}
    for option, value in settings.items():
        for part in reversed(option.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def make_run(shared: Mapping[str, Any], settings: Options) -> SweepRun:
    """The run of one point of the grid.

    Raises:
        ValueError: if a value is none that YAML and JSON share.
    """
    config = merged(shared, nested(settings))
    try:
        text = json.dumps(config, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`fit` and `grid` must hold numbers, texts, lists and null, but got {settings} "
            f"({error}). Put the value into quotes."
        ) from error
    words = "-".join(str(value).rpartition("/")[2] for value in settings.values())
    words = re.sub(r"[^A-Za-z0-9.+-]+", "_", words).strip("._-")[:NAME_CHARACTERS]
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return SweepRun(name=f"{words}_{digest}".lstrip("_"), settings=settings, config=config)


def runs_of(shared: Mapping[str, Any], grid: Mapping[str, Any]) -> list[SweepRun]:
    """The runs of a sweep, in the order of the grid; the last axis changes fastest.

    Args:
        shared: what all runs share of the configuration of `vla-lens fit`, nested.
        grid: a list of settings by axis.

    Raises:
        ValueError: if the grid is none, or holds a point twice.
    """
    points = itertools.product(*axes_of(grid))
    runs = [
        make_run(shared, {option: value for part in point for option, value in part.items()})
        for point in points
    ]
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            raise ValueError(
                f"`grid` must hold every point once, but {run.settings} stands in it "
                f"{names.count(run.name)} times. Remove the settings that repeat."
            )
    return runs


def examples_of(shared: Mapping[str, Any], grid: Mapping[str, Any]) -> Iterator[SweepRun]:
    """Runs in which every setting of every axis occurs: enough to check each of them."""
    axes = axes_of(grid)
    first = {option: value for axis in axes for option, value in axis[0].items()}
    yield make_run(shared, first)
    for axis in axes:
        for setting in axis[1:]:
            yield make_run(shared, {**first, **setting})


def side_by_side(runs: Sequence[SweepRun]) -> Group:
    """The same runs, those that read together beside each other."""
    first: dict[str, int] = {}
    for place, run in enumerate(runs):
        first.setdefault(run.batches, place)
    return tuple(sorted(runs, key=lambda run: first[run.batches]))


def groups_of(runs: Sequence[SweepRun], workers: int) -> list[Group]:
    """Cuts runs into groups that share a stream: as few as keep all workers busy.

    Args:
        runs: in any order.
        workers: how many groups are worked on at once.
    """
    by_stream: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_stream.setdefault(run.stream, []).append(run)
    groups = [side_by_side(group) for group in by_stream.values()]
    while 0 < len(groups) < workers:
        largest = max(groups, key=len)
        if len(largest) == 1:
            break
        place, cut = groups.index(largest), _middle(largest)
        groups[place : place + 1] = [largest[:cut], largest[cut:]]
    return sorted(groups, key=len, reverse=True)  # the long ones first: none is left for the end


def _middle(group: Group) -> int:
    """Where to cut: between runs that do not read together, if there is such a place."""
    pairs = enumerate(itertools.pairwise(group), start=1)
    between = [place for place, (one, other) in pairs if one.batches != other.batches]
    places = between or range(1, len(group))
    return min(places, key=lambda place: (abs(2 * place - len(group)), -place))


def together(runs: Sequence[SweepRun], most: int) -> list[Group]:
    """Cuts a group into runs that read together.

    Args:
        runs: of one group.
        most: how many, for each of them takes memory.
    """
    found: list[Group] = []
    for _, alike in itertools.groupby(side_by_side(runs), key=lambda run: run.batches):
        one = tuple(alike)
        found += [one[first : first + most] for first in range(0, len(one), most)]
    return found
