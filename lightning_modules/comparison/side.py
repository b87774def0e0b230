"""One of the two sets of vectors that are compared, read from shards.

Letters: n rows, d dimensions, u episodes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from datamodules.cell import Cell
from datamodules.whole_dataset import WholeDataset
from jax_bridge.shards.stable_hash import stable_hash
from lightning_modules.context.cell_statistics import NotFinite
from lightning_modules.context.output_norm import without_numbers

ROWS_AT_ONCE = 256
OnRows = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideChoice:
    """Which vectors: a data set, one cell of it, and some of its samples."""

    path: str
    field: str
    layer: int | None = None
    flow_time: float | None = None
    suite: str | None = None
    task_range: str | None = None
    """Half-open, `0:5`."""
    episode_range: str | None = None

    def data(self) -> WholeDataset:
        """The data module, set up.

        Raises:
            FileNotFoundError: if there is no data set.
            ValueError: if the choice is not there, or names more than one cell.
        """
        layer: Any = "all" if self.layer is None else self.layer
        time: Any = "all" if self.flow_time is None else self.flow_time
        data = WholeDataset(
            self.path, [self.field], layer=layer, flow_time=time, suite=self.suite,
            task_range=self.task_range, episode_range=self.episode_range,
        )  # fmt: skip
        data.setup()
        if len(data.cells) != 1:
            word = "layer" if self.layer is None and data.fields[0].layers else "flow_time"
            raise ValueError(
                f"`{word}` must choose one place of {self.field}, but got {len(data.cells)} of "
                f"them. Give --{word} (and --{word}_b for another one in B)."
            )
        return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Vectors in memory, with where each one comes from."""

    name: Literal["A", "B"]
    choice: SideChoice
    cell: Cell
    vectors: Float32[np.ndarray, "n d"]
    keys: list[str]
    unit: Int64[np.ndarray, " n"]
    """The episode of each row, numbered without gaps."""
    episodes: list[str]
    """Their names."""
    tasks: list[str]
    """The task of each episode."""
    prompts: frozenset[str]
    """What the policy read in the chosen samples."""
    facts: dict[str, Any]
    """Fingerprint, content, model, profile, dtype, how many samples there were."""
    not_finite: NotFinite
    not_finite_keys: list[str]

    def take(self, rows: Int64[np.ndarray, " m"]) -> "Side":
        """Some of the rows."""
        used, unit = np.unique(self.unit[rows], return_inverse=True)
        return dataclasses.replace(
            self,
            vectors=self.vectors[rows],
            keys=[self.keys[row] for row in rows],
            unit=unit,
            episodes=[self.episodes[place] for place in used],
            tasks=[self.tasks[place] for place in used],
        )


def chosen_by_lot(keys: list[str], most: int, seed: int) -> Int64[np.ndarray, " m"]:
    """At most so many rows, in their order; a key's lot is the same in every data set."""
    if len(keys) <= most:
        return np.arange(len(keys))
    lots = np.array([stable_hash(seed, key) for key in keys], np.uint64)
    return np.sort(np.argsort(lots, kind="stable")[:most])


def open_sides(
    first: SideChoice,
    second: SideChoice,
    *,
    paired: bool,
    most_rows: int,
    seed: int,
    on_rows: OnRows = lambda done, total: None,
) -> tuple[Side, Side]:
    """Reads both sides; paired ones row by row in the same order.

    Args:
        first: of A.
        second: of B.
        paired: whether only the samples count that both have.
        most_rows: of each side; chosen by lot where there are more.
        seed: of the lot.
        on_rows: told how many vectors of both sides were read, and of how many.

    Raises:
        ValueError: if a choice is not there, or there are too few pairs.
    """
    data = first.data(), second.data()
    rows = [module.rows["all"] for module in data]
    keys = [module.keys(part) for module, part in zip(data, rows, strict=True)]
    if paired:
        both = [key for key in keys[0] if key in set(keys[1])]
        if not both:
            raise ValueError(
                f"`--paired` must have samples that both hold, but none of the {len(keys[0])} keys "
                f"of {first.path} is among the {len(keys[1])} of {second.path}. Leave it out."
            )
        chosen = [both[place] for place in chosen_by_lot(both, most_rows, seed)]
        places = [dict(zip(part, own, strict=True)) for part, own in zip(keys, rows, strict=True)]
        rows = [np.array([where[key] for key in chosen]) for where in places]
    else:
        rows = [
            own[chosen_by_lot(part, most_rows, seed)] for part, own in zip(keys, rows, strict=True)
        ]
    sizes = [len(part) for part in rows]
    a = read_side("A", first, data[0], rows[0], lambda done: on_rows(done, sum(sizes)))
    b = read_side("B", second, data[1], rows[1], lambda done: on_rows(sizes[0] + done, sum(sizes)))
    return paired_finite(a, b) if paired else (a, b)


def paired_finite(a: Side, b: Side) -> tuple[Side, Side]:
    """The pairs of which both are finite."""
    both = set(a.keys) & set(b.keys)
    return tuple(
        side.take(np.array([i for i, key in enumerate(side.keys) if key in both]))
        for side in (a, b)
    )  # pyright: ignore[reportReturnType] - two of them


def read_side(
    name: Literal["A", "B"],
    choice: SideChoice,
    data: WholeDataset,
    rows: Int64[np.ndarray, " n"],
    on_rows: Callable[[int], None],
) -> Side:
    """Reads these rows and tells how many; what is not finite is counted and left out.

    Raises:
        ValueError: if nothing finite is left.
    """
    source = data.reader.sources[0]
    parts: list[np.ndarray] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        parts.append(source.read(data.dataset, part)[:, 0].float().numpy())
        on_rows(start + len(part))
    vectors, bad = np.concatenate(parts), NotFinite()
    numbers = (~np.isfinite(vectors)).sum(axis=1)
    bad.add(rows, numbers)
    there = len(rows)
    rows, vectors = rows[numbers == 0], vectors[numbers == 0]
    if not len(rows):
        raise ValueError(
            f"`{name}` must hold finite vectors, but all {there} of {source.name} in {choice.path} "
            "hold NaN or infinity. Capture them again."
        )
    used, unit = np.unique(data.reader.columns.cluster[rows], return_inverse=True)
    clusters, index = data.clusters, data.dataset.index
    prompts = index["instruction"].take(rows).unique().to_pylist()
    info = data.dataset.info
    return Side(
        name=name,
        choice=choice,
        cell=data.cells[0],
        vectors=vectors,
        keys=data.keys(rows),
        unit=unit,
        episodes=[clusters.episodes[place] for place in used],
        tasks=[clusters.tasks[clusters.task_of_episode[place]] for place in used],
        prompts=frozenset(text or "" for text in prompts),
        facts={
            "path": choice.path, "cell": data.cells[0].name, "dtype": data.fields[0].spec.dtype,
            "fingerprint": data.fingerprint, "content": data.dataset.content_digest,
            "model": without_numbers(info.model), "profile": info.capture.get("profile"),
            "width": vectors.shape[1],
            "samples_there": len(data.rows["all"]), "samples": len(rows), "episodes": len(used),
        },
        not_finite=bad,
        not_finite_keys=data.keys(np.asarray(bad.first, np.int64)),
    )  # fmt: skip
