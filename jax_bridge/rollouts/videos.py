"""Episodes as moving pictures (GIF): what the policy saw at each of its calls."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jax_bridge.shards import ShardDataset
from jax_bridge.shards.sample_choice import SampleChoice

HEIGHT = 256
"""Of the pictures, in pixels."""
FRAME_MS, LAST_MS = 200, 1000
"""How long a picture is shown, and the last one."""


def write_videos(
    dataset: ShardDataset, cameras: Sequence[str], folder: pathlib.Path, *, most: int
) -> list[pathlib.Path]:
    """Writes the first episode of each task, then the second of each, and so on.

    Args:
        dataset: rollouts with images.
        cameras: shown side by side.
        folder: for the files, `t003-e0001-success.gif`.
        most: episodes.
    """
    columns = ["task_id", "episode", "timestep", "success"]
    table = dataset.index.select(columns).to_pylist()
    places: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(table):
        places.setdefault((row["episode"], row["task_id"]), []).append(place)
    choice = SampleChoice(images=tuple(cameras))
    written = []
    for episode, task in sorted(places)[:most]:
        rows = sorted(places[episode, task], key=lambda place: table[place]["timestep"])
        samples = choice.read(dataset, np.asarray(rows, np.int64))
        pictures = [_picture([sample["images"][c] for c in cameras]) for sample in samples]
        word = "success" if table[rows[0]]["success"] else "failure"
        path = folder / f"t{task:03d}-e{episode:04d}-{word}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = [FRAME_MS] * (len(pictures) - 1) + [LAST_MS]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=shown, loop=0)
        written.append(path)
    return written


def _picture(images: Sequence[np.ndarray]) -> Image.Image:
    """All cameras beside each other."""
    size = (HEIGHT, HEIGHT)
    scaled = [np.asarray(Image.fromarray(i).resize(size, Image.Resampling.NEAREST)) for i in images]
    return Image.fromarray(np.concatenate(scaled, axis=1))
