"""Which parts of a sample are read, and the samples as plain dicts of arrays."""

import dataclasses
import io
from typing import Any, cast

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from jax_bridge.shards.dataset import ShardDataset
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.index_rows import MEMBER, member_column
from jax_bridge.shards.projection import FlowTimes, Layers

IMAGE_KINDS = ("jpg", "png")
ROBOT = ("state", "actions", "executed", "action_is_pad")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """The members and fields of a sample that are read; what is not named costs nothing."""

    fields: tuple[str, ...] = ()
    """Latent fields by name."""
    layers: Layers = None
    """Of those fields that have layers; None takes all."""
    flow_times: FlowTimes = None
    """Of those fields that have flow times; None takes all."""
    robot: tuple[str, ...] = ()
    """Of `state`, `actions`, `executed`, `action_is_pad`."""
    images: tuple[str, ...] = ()
    """Cameras, as `base`; decoded to uint8 [height, width, 3]."""
    metadata: tuple[str, ...] = ()
    """Columns of the index, as `instruction`."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.robot) - set(ROBOT))
        if unknown:
            raise ValueError(f"`robot` must name {', '.join(ROBOT)}, but got {unknown}.")

    def check(self, dataset: ShardDataset) -> None:
        """Compares the choice with a data set, before anything is read.

        Raises:
            ValueError: if the data set has no such field, camera or column.
        """
        names = set(dataset.index.column_names)
        cameras = {name for name in self.images if _suffix(names, name) is None}
        for word, missing in (
            ("fields", set(self.fields) - set(dataset.fields)),
            ("images", cameras),
            ("metadata", set(self.metadata) - set(dataset.metadata.column_names)),
        ):
            if missing:
                raise ValueError(
                    f"`{word}` must name what {dataset.path} holds, but got "
                    f"{', '.join(sorted(missing))}. `vla-lens shards inspect` shows what there is."
                )

    def read(self, dataset: ShardDataset, rows: Int64[np.ndarray, " n"]) -> list[dict[str, Any]]:
        """Reads samples, each field with one projected read for all of them.

        Returns:
            One dict a row: `key`, `row`, and under `latents`, `robot`, `images` and `metadata`
            what was chosen of them; a part of which nothing was chosen is left out.

        Raises:
            DamagedShardError: naming shard, key, member and offset; also where a sample lacks a
                chosen part.
        """
        parts: dict[str, dict[str, Any]] = {
            "latents": self._latents(dataset, rows) if self.fields else {},
            "robot": {name: dataset.read_robot(cast(Any, name), rows=rows) for name in self.robot},
            "images": {name: _images(dataset, name, rows) for name in self.images},
            "metadata": {name: _column(dataset, name, rows) for name in self.metadata},
        }
        keys = _column(dataset, "key", rows)
        return [
            {"key": keys[i], "row": int(row)}
            | {
                part: {k: v[i] for k, v in values.items()}
                for part, values in parts.items()
                if values
            }
            for i, row in enumerate(rows)
        ]

    def _latents(
        self, dataset: ShardDataset, rows: Int64[np.ndarray, " n"]
    ) -> dict[str, np.ndarray]:
        batches = dataset.iter_batches(
            self.fields, batch_size=len(rows), layers=self.layers, flow_times=self.flow_times,
            rows=rows,
        )  # fmt: skip
        batch = next(batches)
        return {name: batch[name] for name in self.fields}


def _column(dataset: ShardDataset, name: str, rows: Int64[np.ndarray, " n"]) -> list[Any]:
    return dataset.index.select([name]).take(rows)[name].to_pylist()


def cameras_of(dataset: ShardDataset) -> tuple[str, ...]:
    """Cameras of which some sample has a picture."""
    places = (n for n in dataset.index.column_names if n.startswith(MEMBER))
    members = (n.removeprefix(MEMBER).removesuffix(".offset").partition(".") for n in places)
    return tuple(dict.fromkeys(camera for camera, _, kind in members if kind in IMAGE_KINDS))


def _suffix(columns: set[str], camera: str) -> str | None:
    suffixes = (f"{camera}.{kind}" for kind in IMAGE_KINDS)
    return next((s for s in suffixes if member_column(s, "offset") in columns), None)


def _images(
    dataset: ShardDataset, camera: str, rows: Int64[np.ndarray, " n"]
) -> list[UInt8[np.ndarray, "h w 3"]]:
    suffix = _suffix(set(dataset.index.column_names), camera)
    assert suffix is not None
    contents = dataset.read_members(suffix, rows)
    images = []
    names = (_column(dataset, name, rows) for name in ("key", "shard"))
    for key, shard, content in zip(*names, contents, strict=True):
        try:
            images.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
        except OSError as error:
            raise DamagedShardError(
                "the image cannot be decoded.", shard=shard, key=key, member=suffix
            ) from error
    return images
