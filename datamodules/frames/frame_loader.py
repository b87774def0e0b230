"""Decoding batches of frames, here or in worker processes.

Letters: b batch, l frames of the history, h height, w width, n tokens.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.frames.frame_batch import FrameBatch, FrameSample
from datamodules.frames.frame_order import Batch, EpisodeFrames, batches
from datamodules.frames.frame_source import FrameEpisode, FrameSource
from datamodules.frames.profiles import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameReading:
    """How frames become a batch."""

    source: FrameSource
    profile: Profile
    cameras: Mapping[str, str]
    """The source's camera for `base`, and for `gripper` if the model looks through it."""
    window: int
    """Frames of the history, the current one among them."""
    tokens: Mapping[str, tuple[int, ...]] | None
    """By prompt."""

    def read(self, batch: Batch) -> FrameBatch:
        """Decodes one batch; frames that lie together are decoded together."""
        prompts = [self.profile.text(chosen.episode.instruction) for chosen, _ in batch]
        images = {name: self._camera(batch, place) for name, place in self.cameras.items()}
        if self.profile.zero_gripper and "gripper" not in images:
            images["gripper"] = torch.zeros_like(images["base"])
        tokens = None
        if self.tokens is not None:
            tokens = torch.tensor([self.tokens[prompt] for prompt in prompts], dtype=torch.int64)
        samples = [_sample(chosen, number) for chosen, number in batch]
        return FrameBatch(images=images, tokens=tokens, prompts=prompts, samples=samples)

    def _camera(self, batch: Batch, camera: str) -> Tensor:
        windows = [self._window(int(chosen.frames[number])) for chosen, number in batch]
        wanted: dict[int, tuple[FrameEpisode, set[int]]] = {}
        for (chosen, _), window in zip(batch, windows, strict=True):
            wanted.setdefault(chosen.episode.place, (chosen.episode, set()))[1].update(window)
        pixels: dict[tuple[int, int], np.ndarray] = {}
        for place, (episode, frames) in wanted.items():
            ordered = sorted(frames)
            decoded = self.source.frames(episode, ordered, camera)
            for frame, image in zip(ordered, decoded, strict=True):
                pixels[place, frame] = self.profile.pixels(image)
        stacks = [
            np.stack([pixels[chosen.episode.place, frame] for frame in window])
            for (chosen, _), window in zip(batch, windows, strict=True)
        ]
        _require_one_size(stacks)
        return torch.from_numpy(np.stack(stacks))

    def _window(self, frame: int) -> list[int]:
        """The frames up to this one; the first one stands for those before it."""
        return [max(0, frame - back) for back in range(self.window - 1, -1, -1)]


def _require_one_size(stacks: Sequence[np.ndarray]) -> None:
    sizes = {stack.shape[-2:] for stack in stacks}
    if len(sizes) > 1:
        raise ValueError(
            f"`profile` must give images of one size, but raw frames have {sorted(sizes)}. Choose "
            "a profile that resizes, or batch_size 1."
        )


def _sample(chosen: EpisodeFrames, number: int) -> FrameSample:
    episode = chosen.episode
    timestep = int(episode.timesteps[int(chosen.frames[number])])
    return FrameSample(
        suite=episode.id.suite, task_id=episode.id.task_id, episode=episode.id.episode,
        timestep=timestep, instruction=episode.instruction, task_name=episode.task_name,
        success=episode.success, seed=episode.seed, last=number == len(chosen.frames) - 1,
        episode_length=episode.episode_length or len(episode.timesteps),
    )  # fmt: skip


class FrameBatches(IterableDataset[FrameBatch]):
    """The batches of a rank; workers take turns, so that their order is that of one process."""

    def __init__(
        self, reading: FrameReading, episodes: Sequence[EpisodeFrames], batch_size: int
    ) -> None:
        super().__init__()
        self._reading = reading
        self._episodes = list(episodes)
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[FrameBatch]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, batch in enumerate(batches(self._episodes, self._batch_size)):
            if number % workers == mine:
                yield self._reading.read(batch)


class FrameLoader:
    """The batches of a rank, decoded here or by worker processes.

    Not a DataLoader itself, since Lightning would deal the batches of one to the ranks again.

    Args:
        reading: how frames become a batch.
        episodes: of this rank.
        batch_size: frames a batch.
        num_workers: processes that decode; they start by forkserver, never by fork.
    """

    def __init__(
        self,
        reading: FrameReading,
        episodes: Sequence[EpisodeFrames],
        batch_size: int,
        num_workers: int = 0,
    ) -> None:
        self._length = sum(1 for _ in batches(episodes, batch_size))
        self._loader = DataLoader(
            FrameBatches(reading, episodes, batch_size),
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context="forkserver" if num_workers else None,
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        """Batches of this rank."""
        return self._length

    def __iter__(self) -> Iterator[FrameBatch]:
        """Yields the batches in order."""
        yield from self._loader
