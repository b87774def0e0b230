"""The whole mask of training as one table, taken from the functions that train.

Rows are queries, columns keys; both go image, prompt, text, FAST (the backbone's tokens), then
state and actions (the action expert's).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int8

from jax_bridge.ki import sequence
from jax_bridge.ki.sequence import Targets
from jax_bridge.pi0 import embedding
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.vocabulary import CAMERAS

UNSEEN, SEEN, STOPPED = 0, 1, 2
"""Values of a table: not read, read, read through a stopped gradient."""
GROUPS = (
    *(camera.region for camera in CAMERAS), "prompt", "text", "FAST", "state", "actions",
)  # fmt: skip
"""In the order in which they stand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskTable:
    """Which token reads which."""

    names: tuple[str, ...]
    """Groups of tokens, in order; those without a token are left out."""
    sizes: tuple[int, ...]
    values: Int8[np.ndarray, "q q"]

    def blocks(self) -> list[list[str]]:
        """A word for each pair of groups, with `stopped` before it where no gradient goes back.

        `all`, `none`, `causal`; `valid`: all that are no padding; `some` for anything else.
        """
        ends = np.cumsum(self.sizes)
        starts = ends - self.sizes
        spans = [slice(a, b) for a, b in zip(starts, ends, strict=True)]
        return [[_word(self.values[rows, columns]) for columns in spans] for rows in spans]


def _word(block: Int8[np.ndarray, "r c"]) -> str:
    read = block != UNSEEN
    if not read.any():
        return "none"
    kind = "stopped " if (block[read] == STOPPED).all() else ""
    if read.all():
        return f"{kind}all"
    square = block.shape[0] == block.shape[1]
    causal = square and (read == np.tri(block.shape[0], dtype=bool)).all()
    if causal:
        return f"{kind}causal"
    valid = (read == np.outer(read.any(axis=1), read.any(axis=0))).all()
    return f"{kind}{'valid' if valid else 'some'}"


def mask_table(
    config: Pi0Config,
    *,
    mode: str = "insulate",
    text: int = 0,
    fast: int = 0,
    prompt: int | None = None,
    cameras: tuple[str, ...] = tuple(camera.name for camera in CAMERAS),
) -> MaskTable:
    """The mask of one sample.

    Args:
        config: the model's sizes.
        mode: of the objective.
        text: tokens of a learnt text.
        fast: FAST tokens, `|` and the end mark included; none in `flow_only`.
        prompt: tokens of the prompt; those up to `max_token_len` are padding. None: no padding.
        cameras: those that the robot has; the tokens of the others are masked.

    Raises:
        ValueError: if a number of tokens does not fit.
    """
    size = config.max_token_len if prompt is None else prompt
    if not 0 < size <= config.max_token_len or text < 0 or fast < 0:
        raise ValueError(
            f"`prompt` must lie in [1, {config.max_token_len}] and `text` and `fast` must not be "
            f"negative, but got {size}, {text} and {fast}."
        )
    if mode == "flow_only":
        text = fast = 0
    prefix = [np.full(config.vision.tokens, camera.name in cameras) for camera in CAMERAS]
    prefix.append(np.arange(config.max_token_len) < size)
    valid, targets = jnp.asarray(np.concatenate(prefix)[None]), _targets(text, fast)
    context = sequence.context_mask(valid, targets)
    backbone = np.asarray(sequence.backbone_attention(valid, targets)[0])
    expert = np.asarray(embedding.suffix_attention(context, config)[0])
    suffix = [config.suffix_len - config.action_horizon, config.action_horizon]
    if mode == "fast_only":
        expert, suffix = expert[:0], [0, 0]
    sizes = [len(part) for part in prefix] + [text, fast, *suffix]
    there = [(name, length) for name, length in zip(GROUPS, sizes, strict=True) if length]
    return MaskTable(
        names=tuple(name for name, _ in there),
        sizes=tuple(length for _, length in there),
        values=_assemble(backbone, expert, context.shape[1], stopped=mode == "insulate"),
    )


def _targets(text: int, fast: int) -> Targets:
    """So many learnt tokens, none of them padding."""
    given = [(jnp.zeros((1, n), jnp.int32), jnp.ones((1, n), jnp.bool_)) for n in (text, fast)]
    return Targets(*given[0], *given[1])


def _assemble(
    backbone: np.ndarray, expert: np.ndarray, context: int, *, stopped: bool
) -> Int8[np.ndarray, "q q"]:
    """Both passes in one table: the expert never has FAST tokens among its keys."""
    first, own = backbone.shape[0], expert.shape[0]
    values = np.zeros((first + own, first + own), np.int8)
    values[:first, :first] = backbone
    if own:
        values[first:, :context] = expert[:, :context] * (STOPPED if stopped else SEEN)
        values[first:, first:] = expert[:, context:]
    return values
