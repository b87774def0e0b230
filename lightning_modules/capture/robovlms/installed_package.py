"""`InstalledRoboVLMs`: the user's own robovlms package, as a model that is looked into.

Source: RoboVLMs (commit 8adc1d2), `BaseTrainer.from_checkpoint` and `BaseRoboVLM.inference`.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.frames.frame_batch import FrameBatch
from lightning_modules.capture.robovlms.checkpoint_file import read_tensors
from lightning_modules.capture.robovlms.checkpoint_tensors import root_of
from lightning_modules.capture.robovlms.tensor_account import listed
from lightning_modules.context.output_norm import KEY as NORM
from lightning_modules.context.output_norm import OutputNorm

LAST_NORM = "text_model.model.layer_norm"
"""Ends the path of what Kosmos-2's vectors come out of; other backbones name theirs otherwise."""
TRAINER = "robovlms.train.base_trainer.BaseTrainer"


class InstalledRoboVLMs(nn.Module):
    """Runs the package's own code; capture `policy.act_head`.

    Args:
        checkpoint: the file of the trained policy.
        config: the JSON file of its training.
        trainer: the class whose `from_checkpoint` loads it.
        trust: also read a file that runs code when it is opened, which robovlms does in any case.
    """

    def __init__(
        self, checkpoint: str, config: str, trainer: str = TRAINER, trust: bool = False
    ) -> None:
        super().__init__()
        if not Path(config).is_file():
            raise FileNotFoundError(
                f"`config` must be the JSON file of the training, but {config} is not there."
            )
        settings = json.loads(Path(config).read_text(encoding="utf-8"))
        tensors = read_tensors(checkpoint, trust=trust)
        loaded = _class(trainer).from_checkpoint(checkpoint, "torch", settings)
        self.policy: Any = loaded.model.eval()
        check_loaded(self.policy, tensors)
        self._checkpoint = checkpoint

    def describe(self) -> dict[str, Any]:
        """Where it came from."""
        said = {"name": "robovlms", "route": "installed", "checkpoint": self._checkpoint}
        names = [name for name, _ in self.named_modules() if name.endswith(LAST_NORM)]
        if len(names) != 1:
            return said
        return {**said, NORM: OutputNorm.of(self, names[0], "policy.act_head").to_json()}

    def forward(self, batch: FrameBatch) -> Any:
        """The package's own inference.

        Raises:
            ValueError: if there are no tokens.
        """
        if batch.tokens is None:
            raise ValueError("`tokenizer` must be given for RoboVLMs, but got None.")
        dtype = next(self.policy.parameters()).dtype
        images = {name: image.to(dtype) for name, image in batch.images.items()}
        return self.policy.inference(
            images["base"],
            batch.tokens,
            attention_mask=torch.ones_like(batch.tokens, dtype=torch.bool),
            vision_gripper=images.get("gripper"),
        )


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"`trainer` must be a class that can be imported, but got {path!r} ({error}). Install "
            "robovlms, or use the checkpoint alone: "
            "lightning_modules.capture.robovlms.robovlms.RoboVLMs."
        ) from error


def check_loaded(policy: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Refuses a policy that does not hold its checkpoint's numbers.

    The package loads with `strict=False`, which says nothing where no name fits.

    Raises:
        ValueError: naming tensors of the policy that are not those of the file.
    """
    root = root_of(list(tensors))
    held = policy.state_dict()
    other = [
        name
        for name, value in held.items()
        if root + name not in tensors
        or tensors[root + name].shape != value.shape
        or not torch.equal(tensors[root + name].to(value.dtype), value.cpu())
    ]
    if other:
        raise ValueError(
            f"`checkpoint` must be loaded whole, but {len(other)} of the policy's {len(held)} "
            f"tensors are not those of the file: {listed(other)}. The vectors would be those of "
            "another policy."
        )
