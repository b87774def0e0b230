"""One tiny policy for all tests of captures."""

import pytest
import torch

from datamodules.frames.frame_batch import FrameBatch, FrameSample
from tests.lightning_modules.capture.tiny_robovlms import save, save_tokenizer, tiny_tensors


@pytest.fixture(scope="session")
def tensors():
    return tiny_tensors()


@pytest.fixture(scope="session")
def checkpoint(tensors, tmp_path_factory):
    return save(tmp_path_factory.mktemp("policy") / "policy.pt", tensors)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def sample(row, *, last=False, episode=0):
    return FrameSample(
        suite="toy", task_id=0, episode=episode, timestep=row, instruction="pick up the red cube",
        task_name=None, success=None, episode_length=9, seed=None, last=last,
    )  # fmt: skip


def frame_batch(rows=2, window=1, *, gripper=False, tokens=(0, 4, 5, 6, 2), seed=1):
    """Frames of noise, as the profile `upstream` would make them."""
    generator = torch.Generator().manual_seed(seed)

    def images():
        return torch.randn(rows, window, 3, 224, 224, generator=generator)

    return FrameBatch(
        images={"base": images(), **({"gripper": images()} if gripper else {})},
        tokens=None if tokens is None else torch.tensor([tokens] * rows),
        prompts=["words"] * rows,
        samples=[sample(row) for row in range(rows)],
    )
