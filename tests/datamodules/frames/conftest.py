"""Frames whose pixels say which episode, frame and camera they are."""

import numpy as np
import pytest
from PIL import Image

from tests.lightning_modules.capture.tiny_robovlms import save_tokenizer

WORDS = ("pick up the red cube", "put the blue bowl in the bowl now", "pick up the red cube")
"""Prompts of two lengths."""


def colour(episode, frame, camera="base"):
    return (40 * episode + 20, 10 * frame + 5, 100 if camera == "base" else 200)


def write_folders(root, *, cameras=("base",), frames=(4, 3, 5)):
    for episode, count in enumerate(frames):
        folder = root / f"episode_{episode}"
        for camera in cameras:
            place = folder if len(cameras) == 1 else folder / camera
            place.mkdir(parents=True, exist_ok=True)
            for frame in range(count):
                pixels = np.full((12, 16, 3), colour(episode, frame, camera), np.uint8)
                Image.fromarray(pixels).save(place / f"{frame:04d}.png")
        (folder / "instruction.txt").write_text(WORDS[episode] + "\n")
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("frames") / "episodes")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
