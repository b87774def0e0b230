"""Everything that docs/context_vectors.md runs on, made of random numbers.

python -m tests.lightning_modules.capture.tiny_story FOLDER

Writes policy.pt and finetuned.pt (some weights moved), tokenizer/, and episodes/*.h5: a vehicle that
drives to a bowl, in the mobile-VLA layout.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch

from tests.lightning_modules.capture.tiny_robovlms import save, save_tokenizer, tiny_tensors

TASKS = {
    "pick up the red cube": (0, 1.0), "pick up the blue cube": (0, -1.0),
    "put the red cube in the bowl": (1, 1.0), "put the blue cube in the bowl": (1, -1.0),
}  # fmt: skip
MOVED = "backbone.text_model.model.layers.1.ffn.fc2.weight"


def finetuned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The policy after a fine-tuning that moved one layer and the action token a little."""
    torch.manual_seed(1)
    names = (MOVED, "action_token")
    moved = {name: tensors[name] + 0.1 * torch.randn_like(tensors[name]) for name in names}
    return {**tensors, **moved}


def write_episode(path: Path, words: str, number: int) -> None:
    """One drive: the actions, and what the camera saw."""
    rng = np.random.default_rng(number)
    axis, sign = TASKS[words]
    steps = int(rng.integers(12, 30))
    actions = 0.1 * rng.standard_normal((steps, 3))
    actions[:, axis] += sign
    place = 40 + np.cumsum(actions[:, :2], axis=0)
    images = np.full((steps, 72, 96, 3), 90, np.uint8)
    images += rng.integers(0, 60, images.shape, dtype=np.uint8)
    for step, (x, y) in enumerate(place.astype(int)):
        images[step, y : y + 12, x : x + 12] = (30, 30, 200) if "red" in words else (200, 60, 30)
    with h5py.File(path, "w") as file:
        file["actions"], file["images"] = actions.astype(np.float32), images
        file.attrs["language_instruction"] = words
        file.attrs["difficulty"] = "hard" if steps > 20 else "easy"


def write_story(root: Path, episodes: int = 24) -> None:
    """Writes all files."""
    (root / "episodes").mkdir(parents=True, exist_ok=True)
    tensors = tiny_tensors()
    save(root / "policy.pt", tensors)
    save(root / "finetuned.pt", finetuned(tensors))
    save_tokenizer(root / "tokenizer")
    for number in range(episodes):
        words = list(TASKS)[number % len(TASKS)]
        write_episode(root / "episodes" / f"drive_{number:03d}.h5", words, number)


if __name__ == "__main__":
    write_story(Path(sys.argv[1]))
