"""`RoboVLMs`: the part of a RoboVLMs policy that makes the context vector, from its checkpoint.

Letters: b batch, l frames of the history, n tokens, i tokens of an image, k action tokens, d width.

Source: RoboVLMs (commit 8adc1d2), `forward_continuous` of base_backbone.py.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from datamodules.frames.frame_batch import FrameBatch
from lightning_modules.capture.robovlms.checkpoint_file import read_tensors
from lightning_modules.capture.robovlms.checkpoint_tensors import sort_tensors
from lightning_modules.capture.robovlms.kosmos import (
    EMBEDDING,
    OUTPUT,
    build_kosmos,
    check_backbone,
    kosmos_config,
    require_kosmos,
)
from lightning_modules.capture.robovlms.lora import merge_lora
from lightning_modules.context.output_norm import KEY as NORM
from lightning_modules.context.output_norm import OutputNorm

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAST_NORM = "backbone.text_model.model.layer_norm"
"""What the context vector comes out of."""
RNN_INPUT = "rnn.weight_ih_l0"
"""Of the head: its input is all action tokens of a frame side by side."""


class ActionHeadInput(nn.Module):
    """Stands where the action head stands; what it receives is the context vector."""

    def forward(self, action_hs: Float[Tensor, "b l k d"]) -> Float[Tensor, "b l k d"]:
        """Gives back what it is given."""
        return action_hs


class RoboVLMs(nn.Module):
    """Images and words to what the action head receives; no robovlms needed.

    Args:
        checkpoint: the file of the trained policy.
        history: `post`: every frame on its own; `pre`: the frames of the window one after the
            other in one sequence.
        latent: action tokens a frame; by default as the action head's shapes tell, or 1.
        text_heads: attention heads of the language model; no shape tells them.
        vision_heads: attention heads of the image encoder.
        lora_alpha: of the training, for a checkpoint with LoRA.
        dtype: of weights and vectors; `checkpoint` keeps the file's.
        trust: also read a file that runs code when it is opened; see `read_tensors`.
    """

    def __init__(
        self,
        checkpoint: str,
        history: Literal["post", "pre"] = "post",
        latent: int | None = None,
        text_heads: int = 32,
        vision_heads: int = 16,
        lora_alpha: float | None = None,
        dtype: Literal["checkpoint", "float32", "bfloat16", "float16"] = "checkpoint",
        trust: bool = False,
    ) -> None:
        super().__init__()
        if history not in ("post", "pre"):
            raise ValueError(f"`history` must be post or pre, but got {history!r}.")
        require_kosmos()
        found = sort_tensors(read_tensors(checkpoint, trust=trust))
        tensors = merge_lora(found.backbone, lora_alpha, found.account)
        found.account.backbone = len(tensors)
        found.account.check()
        config = kosmos_config(tensors, text_heads=text_heads, vision_heads=vision_heads)
        tensors.setdefault(OUTPUT, tensors[EMBEDDING])
        check_backbone(tensors, config)
        width = config.text_config.embed_dim
        if found.action_token.shape != (width,):
            raise ValueError(
                f"`checkpoint` must hold an action token of the width {width}, but its shape is "
                f"{tuple(found.action_token.shape)}."
            )
        self._dtype = DTYPES.get(dtype, tensors[EMBEDDING].dtype)
        self.backbone: Any = build_kosmos(tensors, config, self._dtype)
        self.action_token = nn.Parameter(found.action_token.to(self._dtype, copy=True))
        self.act_head = ActionHeadInput()
        self.latent = _latent(latent, found.act_head, width)
        self.history = history
        self.account = found.account
        self._checkpoint = checkpoint
        self.requires_grad_(False)

    def describe(self) -> dict[str, Any]:
        """Where it came from, and how every tensor of it was used."""
        return {
            "name": "robovlms", "route": "checkpoint", "checkpoint": self._checkpoint,
            "dtype": str(self._dtype).removeprefix("torch."), "history": self.history,
            "latent": self.latent, "tensors": self.account.to_json(),
            NORM: OutputNorm.of(self, LAST_NORM, "act_head").to_json(),
        }  # fmt: skip

    def forward(self, batch: FrameBatch) -> Float[Tensor, "b l k d"]:
        """What the action head receives.

        Raises:
            ValueError: if there are no tokens, or they or the images are not this model's.
        """
        tokens, images = self._checked(batch)
        rows, window = images["base"].shape[:2]
        words = self.backbone.text_model.model.embed_tokens(tokens)
        words = words.repeat_interleave(window, dim=0)
        for camera in ("base", "gripper"):  # the gripper's image ends up before the other
            if camera in images:
                seen = self.encode_images(images[camera].flatten(0, 1))
                words = torch.cat([words[:, :1], seen, words[:, 1:]], dim=1)
        asked = self.action_token.expand(len(words), self.latent, -1)
        sequence = torch.cat([words[:, :-1], asked, words[:, -1:]], dim=1)
        place = slice(sequence.shape[1] - 1 - self.latent, sequence.shape[1] - 1)
        if self.history == "pre":
            sequence = sequence.reshape(rows, -1, sequence.shape[-1])
        hidden = self._decode(sequence).reshape(rows, window, -1, sequence.shape[-1])
        return self.act_head(hidden[:, :, place])

    def encode_images(self, images: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "m i d"]:
        """An image's tokens, in the width of the language model."""
        vision = self.backbone.vision_model
        hidden = vision(pixel_values=images.to(self._dtype)).last_hidden_state
        normed = nn.functional.normalize(vision.model.post_layernorm(hidden), dim=-1)
        return self.backbone.image_to_text_projection(normed)[0]

    def _decode(self, sequence: Float[Tensor, "m n d"]) -> Float[Tensor, "m n d"]:
        mask = torch.ones(sequence.shape[:2], dtype=torch.int64, device=sequence.device)
        return self.backbone.text_model.model(
            inputs_embeds=sequence, attention_mask=mask, use_cache=False
        ).last_hidden_state

    def _checked(self, batch: FrameBatch) -> tuple[Int64[Tensor, "b n"], dict[str, Tensor]]:
        if batch.tokens is None:
            raise ValueError(
                "`tokenizer` must be given for RoboVLMs, but got None. Give a folder that holds "
                "Kosmos-2's tokenizer, or its address microsoft/kosmos-2-patch14-224."
            )
        words = self.backbone.config.text_config.vocab_size
        if int(batch.tokens.max()) >= words:
            raise ValueError(
                f"`tokenizer` must be the model's, which knows {words} tokens, but got token "
                f"{int(batch.tokens.max())}."
            )
        size = self.backbone.config.vision_config.image_size
        for camera, image in batch.images.items():
            if not image.is_floating_point() or image.shape[-2:] != (size, size):
                raise ValueError(
                    f"`profile` must give float images of {size} x {size}, but {camera} is "
                    f"{image.dtype} {tuple(image.shape[-2:])}. Choose upstream or mobile_vla."
                )
        return batch.tokens, batch.images


def _latent(given: int | None, head: dict[str, Tensor], width: int) -> int:
    """Action tokens a frame.

    Raises:
        ValueError: if what is given is not what the head's shapes tell.
    """
    told = None
    if RNN_INPUT in head and not head[RNN_INPUT].shape[1] % width:
        told = head[RNN_INPUT].shape[1] // width
    if given is not None and (given < 1 or told not in (None, given)):
        raise ValueError(
            f"`latent` must be what the action head takes, {told or 'at least 1'}, but got {given}."
        )
    return given or told or 1
