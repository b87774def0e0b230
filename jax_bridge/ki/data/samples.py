"""From a recorded frame, or a question about pictures, to one row of a training batch.

Letters: h action horizon; a action dimensions of the model; r of the robot; s of its state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.fast.targets import FastTargets
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.data.answers import ANSWER, QUESTION, TextIds
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.pi0 import Observation
from jax_bridge.pi0.observation import TARGET_FIELDS
from jax_bridge.policies.normalisation import normalise
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import TokenizedPrompt, tokenize_prompt
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
    targets: Mapping[int, FastTargets] = dataclasses.field(default_factory=dict)
    """Of the robot's data, by the data set's number; none where no tokens are learnt."""
    fast: FastIds | None = None
    text: TextIds | None = None
    """Of answers; None where no data set has some, or no tokens are learnt."""

    @property
    def fast_tokenizer(self) -> FastTokenizer | None:
        """What made the FAST codes."""
        return next((own.tokenizer for own in self.targets.values()), None)

    def __call__(self, read: list[dict[str, Any]]) -> Row:
        """Samples on top of each other, from what `SampleChoice` reads of them."""
        made = [self.row(one) for one in read]
        return {name: np.stack([one[name] for one in made]) for name in made[0]}

    def row(self, read: dict[str, Any]) -> Row:
        """One sample: a demonstration's frame, or a question; both have the same shapes."""
        robot, question = read.get("robot"), read["metadata"][QUESTION]
        row = {"key": np.asarray(read["key"]), **self._pictures(read["images"])}
        row |= self._no_robot(question) if robot is None else self._frame(question, robot)
        if self.fast is not None:
            row |= self._fast_target(self.fast, read)
        if self.text is not None:
            row |= _text_target(self.text, read["metadata"])
        return row

    def _pictures(self, images: dict[str, np.ndarray]) -> Row:
        processor, side = self.processor, self.processor.config.vision.image_size
        nobody = np.zeros(0, np.float32)
        seen = processor.seen_images(RobotObservation(images=images, state=nobody, instruction=""))
        black = np.zeros((side, side, 3), np.uint8)
        chosen = [camera for camera in CAMERAS if camera.name in self.cameras]
        row = {f"{IMAGE}{c.openpi_key}": seen.get(c.name, black) for c in chosen}
        return row | {f"{MASK}{c.openpi_key}": np.asarray(c.name in seen) for c in chosen}

    def _frame(self, instruction: str, robot: dict[str, Any]) -> Row:
        processor, config = self.processor, self.processor.config
        statistics = processor.norm_stats and processor.norm_stats.state
        state = np.asarray(robot["state"], np.float64)
        normal = normalise(state, statistics, processor.recipe.normalisation)
        prompt = tokenize_prompt(
            processor.tokenizer,
            instruction,
            state=normal if processor.state_in_prompt else None,
            max_length=config.max_token_len,
            prompt_layout=processor.prompt_layout,
        )
        padded = np.zeros(config.action_dim, np.float32)
        padded[: len(normal)] = normal
        return {"state": padded, **_words(prompt), **self._actions(robot)}

    def _no_robot(self, question: str) -> Row:
        """A question, no state, and actions that nobody learns."""
        config = self.processor.config
        prompt = tokenize_prompt(
            self.processor.tokenizer, question, max_length=config.max_token_len
        )
        return {
            "state": np.zeros(config.action_dim, np.float32),
            **_words(prompt),
            "actions": np.zeros((config.action_horizon, config.action_dim), np.float32),
            "action_is_pad": np.zeros(config.action_horizon, bool),
            "action_mask": np.asarray(False),
        }

    def _fast_target(self, fast: FastIds, read: dict[str, Any]) -> Row:
        targets = self.targets.get(read["dataset"])
        codes = np.zeros(0, np.int32) if targets is None else targets.codes([read["row"]])[0]
        ids, mask = fast.target(codes)
        left_out = targets is not None and not mask.any()
        return {
            "fast_action_tokens": ids, "fast_action_mask": mask,
            "fast_left_out": np.asarray(left_out),
        }  # fmt: skip

    def _actions(self, robot: dict[str, Any]) -> Row:
        config = self.processor.config
        chunk = self._relative(np.asarray(robot["actions"], np.float64), robot["state"])
        statistics = self.processor.norm_stats and self.processor.norm_stats.actions
        normal = normalise(chunk, statistics, self.processor.recipe.normalisation)
        padded = np.zeros((config.action_horizon, config.action_dim), np.float32)
        padded[:, : normal.shape[1]] = normal
        return {
            "actions": padded,
            "action_is_pad": np.asarray(robot["action_is_pad"], bool),
            "action_mask": np.asarray(True),
        }

    def _relative(self, chunk: Float[np.ndarray, "h r"], state: Any) -> Float[np.ndarray, "h r"]:
        mask = self.processor.recipe.delta_mask
        if mask is None:
            return chunk
        moved, size = chunk.copy(), len(mask)
        moved[:, :size] -= np.where(np.asarray(mask), np.asarray(state, np.float64)[:size], 0.0)
        return moved


def _words(prompt: TokenizedPrompt) -> Row:
    return {"tokenized_prompt": prompt.ids, "tokenized_prompt_mask": prompt.mask}


def _text_target(text: TextIds, metadata: dict[str, Any]) -> Row:
    answer = metadata.get(ANSWER)
    ids, mask = text.nothing() if answer is None else text.target(metadata[QUESTION], answer)
    left_out = answer is not None and not mask.any()
    return {
        "text_target_tokens": ids, "text_target_mask": mask, "text_left_out": np.asarray(left_out),
    }  # fmt: skip


def as_batch(rows: Row, action_dims: np.ndarray) -> TrainingBatch:
    """Stacked rows as a batch."""
    names = ("state", "tokenized_prompt", "tokenized_prompt_mask")
    observation = Observation(
        images=_under(rows, IMAGE), image_masks=_under(rows, MASK),
        **{name: rows[name] for name in names},
        **{name: rows[name] for name in TARGET_FIELDS if name in rows},
    )  # fmt: skip
    return TrainingBatch(
        observation=observation, actions=rows["actions"],
        action_mask=rows["action_mask"], action_is_pad=rows["action_is_pad"],
        action_dims=action_dims,
    )  # fmt: skip


def _under(rows: Row, prefix: str) -> Row:
    return {k.removeprefix(prefix): v for k, v in rows.items() if k.startswith(prefix)}
