"""`FrameDataModule`: frames and instructions for a torch model that is looked into."""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl

from datamodules.frames.frame_loader import FrameLoader, FrameReading
from datamodules.frames.frame_order import EpisodeFrames, choose_frames, share_of_rank
from datamodules.frames.frame_source import FrameSource
from datamodules.frames.plan_file import match_names, read_plan
from datamodules.frames.profiles import Profile, find_profile
from datamodules.frames.prompt_tokens import PromptTokens
from datamodules.frames.sources import open_source
from datamodules.plan_loader import rank_and_world_size
from jax_bridge.shards import EpisodeId


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be positive, but got {number}.")


class FrameDataModule(pl.LightningDataModule):
    """Frames of episodes, with their instructions as tokens, in batches of equal token length.

    Args:
        path: a data set of shards that holds images, a folder of episode files (HDF5, npz) or one
            such file, or a folder of folders of images.
        kind: shards, episodes or images; auto looks.
        profile: how frames and words become inputs: upstream, mobile_vla, or raw.
        tokenizer: a local folder or hub address; None gives the model no tokens.
        instruction: for episodes that do not say what the robot was told.
        camera: the camera that the model looks through.
        gripper_camera: the camera at the gripper, if the model was trained with one.
        window: frames of the history that the model sees at once; the first one of an episode
            stands for those before it.
        every: every n-th frame is read; not used with a plan.
        plan: a file of `vla-lens sampling-plan`, which says which frames are read.
        batch_size: frames a batch; fewer where prompts of this length end.
        num_workers: processes that decode.
    """

    def __init__(
        self,
        path: str,
        kind: Literal["auto", "shards", "episodes", "images"] = "auto",
        profile: str = "upstream",
        tokenizer: str | None = None,
        instruction: str | None = None,
        camera: str = "base",
        gripper_camera: str | None = None,
        window: int = 1,
        every: int = 1,
        plan: str | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        _require_positive(window=window, every=every, batch_size=batch_size)
        self.path, self.kind = path, kind
        self.profile: Profile = find_profile(profile)
        self._tokenizer, self._instruction = tokenizer, instruction
        self._cameras = {"base": camera, **({"gripper": gripper_camera} if gripper_camera else {})}
        self._window, self._every, self._plan = window, every, plan
        self.batch_size, self._num_workers = batch_size, num_workers
        self.done: Collection[EpisodeId] = frozenset()
        """Episodes that are there already, by whoever writes; they are not read again."""
        self.episodes: list[EpisodeFrames] = []
        """What is to be read, done or not, of all ranks."""

    def setup(self, stage: str | None = None) -> None:
        """Opens the source, reads the plan, tokenises the prompts; once.

        Raises:
            FileNotFoundError: if the data, the plan or the tokenizer are not there.
            ValueError: if nothing is left to read.
        """
        if self.episodes:
            return
        self.source: FrameSource = open_source(self.path, self.kind, self._instruction)
        tokens, self._vocabulary = self._tokenise()
        chosen = None
        if self._plan is not None:
            chosen = match_names(read_plan(self._plan), [e.name for e in self.source.episodes])
        lengths = {
            episode.place: len(tokens[self.profile.text(episode.instruction)]) if tokens else 0
            for episode in self.source.episodes
        }
        self.episodes = choose_frames(
            self.source.episodes, every=self._every, chosen=chosen, lengths=lengths
        )
        if not self.episodes:
            raise ValueError(f"`path` must hold frames, but {self.path} holds none.")
        self.reading = FrameReading(
            source=self.source, profile=self.profile, cameras=self._cameras, window=self._window,
            tokens=tokens,
        )  # fmt: skip

    def _tokenise(self) -> tuple[dict[str, tuple[int, ...]] | None, str | None]:
        if self._tokenizer is None:
            return None, None
        encode = PromptTokens(self._tokenizer)
        prompts = {self.profile.text(e.instruction) for e in self.source.episodes}
        return {prompt: encode(prompt) for prompt in prompts}, encode.digest

    @property
    def frames(self) -> int:
        """Frames that are to be read, by all ranks."""
        return sum(len(e.frames) for e in self.episodes)

    def describe(self) -> dict[str, Any]:
        """What the model is shown, in plain types: enters the fingerprint of what is captured."""
        plan = None
        if self._plan is not None:
            plan = hashlib.sha256(Path(self._plan).read_bytes()).hexdigest()
        return {
            "source": self.source.describe(),
            "profile": self.profile.to_json(),
            "cameras": dict(self._cameras),
            "window": self._window,
            "frames": {"every": self._every} if plan is None else {"plan": plan},
            "vocabulary": self._vocabulary,
        }

    def predict_dataloader(self) -> FrameLoader:
        """Batches of this rank, without the episodes that are done."""
        rank, world_size = rank_and_world_size()
        share = share_of_rank(self.episodes, rank, world_size, self.done)
        return FrameLoader(self.reading, share, self.batch_size, self._num_workers)
