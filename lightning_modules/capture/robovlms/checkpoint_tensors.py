"""Sorting the tensors of a RoboVLMs checkpoint: backbone, action token, head, and the rest.

A checkpoint of Lightning or DeepSpeed puts `model.`, `module.` or `_forward_module.` before every
name. Loading such names with `strict=False` changes no tensor at all and leaves stock Kosmos-2, so
here the place of the action token tells what stands before the names, and each tensor that is left
over is an error.

Source: RoboVLMs (commit 8adc1d2), base_backbone.py and base_trainer.py; peft's names of LoRA.
"""

import dataclasses
import re

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_modules.capture.robovlms.tensor_account import TensorAccount, listed

TOKEN = "action_token"
ROOT = re.compile(r"((_forward_module|_orig_mod|module|model)\.)*")
BACKBONE = ("backbone.", "model.")
"""Where the backbone stands; the second is LoRA's name for the same modules."""
PEFT = "base_model.model."
HEAD = "act_head"
UNUSED = ("fwd_head", "clip_norm_head", "static_image_tokens", "hand_image_tokens")
"""Parts of other training objectives, which the context vector does not pass through."""
INSIDE = ("vision_resampler", "embed_arm_state", "embed_gripper_state", "embed_state")
"""Parts that change what the backbone reads, and that are not rebuilt here."""
RECOMPUTED = ("position_ids", "embed_positions.weights")
"""Buffers that old versions of transformers saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointTensors:
    """A checkpoint, sorted."""

    backbone: dict[str, Tensor]
    """By Kosmos-2's own names; LoRA may still stand beside its base."""
    action_token: Float[Tensor, " d"]
    act_head: dict[str, Tensor]
    account: TensorAccount


def sort_tensors(tensors: dict[str, Tensor]) -> CheckpointTensors:
    """Sorts the tensors of a checkpoint.

    Raises:
        ValueError: if there is no action token or it is zero, or a tensor has no known place.
    """
    root = root_of(list(tensors))
    account = TensorAccount(total=len(tensors), root=root)
    backbone: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    strange: list[str] = []
    for name, tensor in tensors.items():
        part = name.removeprefix(root)
        first = part.partition(".")[0]
        if not name.startswith(root):
            strange.append(name)
        elif part == TOKEN:
            account.action_token = 1
        elif first == HEAD:
            head[part.removeprefix(f"{HEAD}.")] = tensor
        elif first in UNUSED:
            account.unused[first] = account.unused.get(first, 0) + 1
        elif first in INSIDE:
            raise ValueError(
                f"`checkpoint` must be of a policy whose backbone reads images, words and action "
                f"tokens alone, but this one has {first} as well. Use the installed robovlms "
                "(lightning_modules.capture.robovlms.installed_package)."
            )
        elif part.startswith(BACKBONE):
            _add_backbone(backbone, part, tensor, account)
        else:
            strange.append(name)
    if strange:
        raise ValueError(
            "`checkpoint` must hold a RoboVLMs policy and nothing else, but it also has "
            f"{len(strange)} tensors of no known place: {listed(strange)}."
        )
    account.act_head = len(head)
    token = _checked_token(tensors[root + TOKEN])
    return CheckpointTensors(backbone=backbone, action_token=token, act_head=head, account=account)


def root_of(names: list[str]) -> str:
    """What stands before every name, read off the action token's."""
    found = [name for name in names if name.rpartition(".")[2] == TOKEN]
    roots = [name.removesuffix(TOKEN) for name in found]
    if len(roots) != 1 or not ROOT.fullmatch(roots[0]):
        stock = any(name.startswith("text_model.") for name in names)
        hint = " These are the names of stock Kosmos-2." if stock else ""
        raise ValueError(
            f"`checkpoint` must hold one {TOKEN}, which a RoboVLMs policy with continuous actions "
            f"has, but got {listed(found) or 'none'} among {len(names)} tensors such as "
            f"{listed(names)}.{hint}"
        )
    return roots[0]


def _checked_token(token: Tensor) -> Tensor:
    if token.ndim != 1 or not bool(torch.isfinite(token).all()):
        raise ValueError(
            f"`checkpoint` must hold a finite {TOKEN} of one axis, but its shape is "
            f"{tuple(token.shape)}, or it has NaN or Inf."
        )
    if not bool(token.any()):
        raise ValueError(
            f"`checkpoint` must be trained, but its {TOKEN} is all zeros, as it is before the "
            "first step. Every vector would be that of an untrained policy."
        )
    return token


def _add_backbone(
    backbone: dict[str, Tensor], part: str, tensor: Tensor, account: TensorAccount
) -> None:
    name = part.partition(".")[2].removeprefix(PEFT)
    if name.endswith(RECOMPUTED):
        account.recomputed += 1
        return
    if name not in backbone:
        backbone[name] = tensor
        return
    first = backbone[name]
    same_bytes = first.data_ptr() == tensor.data_ptr() and first.shape == tensor.shape
    if not same_bytes and not torch.equal(first, tensor):
        raise ValueError(
            f"`checkpoint` must hold one backbone, but it holds two different tensors for {name}. "
            "Save the policy anew."
        )
    account.aliases += 1
