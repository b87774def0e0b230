"""From a recorded frame to one row of a training batch.

Letters: h action horizon; a action dimensions of the model; r of the robot; s of its state.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.fast.targets import FastTargets
from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.pi0 import Observation
from jax_bridge.policies.normalisation import normalise
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import tokenize_prompt
from jax_bridge.vocabulary import CAMERAS

Row = dict[str, np.ndarray]
"""One sample, or several; images are grey levels (uint8)."""
IMAGE, MASK = "image/", "image_mask/"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleMaker:
    """Prepares samples as the policy will prepare what it sees."""

    processor: Processor
    cameras: tuple[str, ...]
    """Those that some data set of the mixture has; the others are left out of every batch."""
    targets: tuple[FastTargets, ...] = ()
    """Of each data set; none where nothing is learnt in words."""
    fast: FastIds | None = None

    def __call__(self, read: list[dict[str, Any]]) -> Row:
        """Samples on top of each other, from what `SampleChoice` reads of them."""
        made = [self.row(one) for one in read]
        return {name: np.stack([one[name] for one in made]) for name in made[0]}

    def row(self, read: dict[str, Any]) -> Row:
        """One sample."""
        robot = read["robot"]
        row = {"key": np.asarray(read["key"]), **self._inputs(read), **self._actions(robot)}
        if self.fast is not None:
            (codes,) = self.targets[read["dataset"]].codes([read["row"]])
            ids, mask = self.fast.target(codes)
            row |= {"fast_action_tokens": ids, "fast_action_mask": mask}
            row["fast_left_out"] = np.asarray(not mask.any())
        return row

    def _inputs(self, read: dict[str, Any]) -> Row:
        processor, config = self.processor, self.processor.config
        state = np.asarray(read["robot"]["state"])
        seen = processor.seen_images(
            RobotObservation(images=read["images"], state=state, instruction="")
        )
        side = config.vision.image_size
        black = np.zeros((side, side, 3), np.uint8)
        statistics = processor.norm_stats and processor.norm_stats.state
        normal = normalise(state.astype(np.float64), statistics, processor.recipe.normalisation)
        prompt = tokenize_prompt(
            processor.tokenizer,
            read["metadata"]["instruction"],
            state=normal if processor.state_in_prompt else None,
            max_length=config.max_token_len,
            prompt_layout=processor.prompt_layout,
        )
        padded = np.zeros(config.action_dim, np.float32)
        padded[: len(normal)] = normal
        chosen = [camera for camera in CAMERAS if camera.name in self.cameras]
        row = {f"{IMAGE}{c.openpi_key}": seen.get(c.name, black) for c in chosen}
        row |= {f"{MASK}{c.openpi_key}": np.asarray(c.name in seen) for c in chosen}
        return row | {
            "state": padded, "tokenized_prompt": prompt.ids, "tokenized_prompt_mask": prompt.mask,
        }  # fmt: skip

    def _actions(self, robot: dict[str, Any]) -> Row:
        config = self.processor.config
        chunk = self._relative(np.asarray(robot["actions"], np.float64), robot["state"])
        statistics = self.processor.norm_stats and self.processor.norm_stats.actions
        normal = normalise(chunk, statistics, self.processor.recipe.normalisation)
        padded = np.zeros((config.action_horizon, config.action_dim), np.float32)
        padded[:, : normal.shape[1]] = normal
        return {"actions": padded, "action_is_pad": np.asarray(robot["action_is_pad"], bool)}

    def _relative(self, chunk: Float[np.ndarray, "h r"], state: Any) -> Float[np.ndarray, "h r"]:
        mask = self.processor.recipe.delta_mask
        if mask is None:
            return chunk
        moved, size = chunk.copy(), len(mask)
        moved[:, :size] -= np.where(np.asarray(mask), np.asarray(state, np.float64)[:size], 0.0)
        return moved


def as_batch(rows: Row, action_dims: np.ndarray) -> TrainingBatch:
    """Stacked rows as a batch."""
    names = ("state", "tokenized_prompt", "tokenized_prompt_mask")
    learnt = ("fast_action_tokens", "fast_action_mask")
    observation = Observation(
        images=_under(rows, IMAGE), image_masks=_under(rows, MASK),
        **{name: rows[name] for name in names},
        **{name: rows[name] for name in learnt if name in rows},
    )  # fmt: skip
    return TrainingBatch(
        observation=observation, actions=rows["actions"],
        action_mask=np.ones(len(rows["actions"]), bool), action_is_pad=rows["action_is_pad"],
        action_dims=action_dims,
    )  # fmt: skip


def _under(rows: Row, prefix: str) -> Row:
    return {k.removeprefix(prefix): v for k, v in rows.items() if k.startswith(prefix)}
