"""Sides of a comparison without any shards."""

from collections.abc import Sequence

import numpy as np

from datamodules.cell import Cell
from lightning_modules.comparison.side import Side, SideChoice
from lightning_modules.context.cell_statistics import NotFinite

CELL = Cell(expert="context", site="act_head", region="input", pool="tokens")


def side_of(name: str, episodes: Sequence[np.ndarray], *, tasks: int = 1, **facts) -> Side:
    """One [frames, width] array an episode."""
    sizes = [len(frames) for frames in episodes]
    keys = [f"{name}-{e}-{s}" for e, size in enumerate(sizes) for s in range(size)]
    vectors = np.concatenate(episodes).astype(np.float32)
    return Side(
        name=name,
        choice=SideChoice(path=name, field="x"),
        cell=CELL,
        vectors=vectors,
        keys=keys,
        unit=np.repeat(np.arange(len(sizes)), sizes),
        episodes=[f"e{number}" for number in range(len(sizes))],
        tasks=[f"task{number % tasks}" for number in range(len(sizes))],
        prompts=frozenset({"go"}),
        facts={"path": name, "samples_there": len(vectors), "content": name, **facts},
        not_finite=NotFinite(),
        not_finite_keys=[],
    )
