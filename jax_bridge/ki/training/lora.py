"""Low-rank changes: beside each adapted leaf, which stays as it is, a thin product is learnt.

A state's tree then holds `lora/PATH/a` and `lora/PATH/b` for each adapted leaf, and the model reads
`leaf + alpha / rank * a @ b`. What is saved as `params/` is that sum, so that everything that reads
a checkpoint of openpi reads it.

Letters: i inputs; o outputs; r rank. The last two axes of a leaf are one matrix, as in openpi.
Source: Hu et al. 2021, "LoRA", arXiv:2106.09685; openpi, `src/openpi/models/lora.py`.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jax_bridge.ki.optimiser import FROZEN, OptimiserConfig, update_groups
from jax_bridge.ki.parameter_groups import LORA_PREFIX
from jax_bridge.pi0.observation import ArrayLike
from jax_bridge.pi0.parameters import Params, leaves, unflatten

LORA = LORA_PREFIX.rstrip("/")
SCALE = 0.01
"""Standard deviation of `a` at the start; `b` starts at zero, so that nothing changes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which leaves are adapted, and how."""

    rank: int = 0
    """Columns of `a`; 0 adapts nothing."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank."""
    pattern: str = r"PaliGemma/llm/layers/(attn|mlp)"
    """A regular expression: leaves of two axes or more whose path it matches are adapted."""

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.alpha > 0:
            raise ValueError(
                f"`rank` must not be negative and `alpha` must be positive, but got {self.rank} "
                f"and {self.alpha}."
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"`pattern` must be a regular expression, but got {self.pattern!r} ({error})."
            ) from error


def add_lora(params: Params, config: LoraConfig, seed: int) -> dict[str, Any]:
    """The tree with room for changes that change nothing yet.

    Raises:
        ValueError: if no leaf is adapted, or a leaf is thinner than the rank.
    """
    if not config.rank:
        return dict(params)
    random, added = np.random.default_rng([seed, config.rank]), {}
    for path, leaf in leaves(params):
        if not re.search(config.pattern, path) or np.ndim(leaf) < 2 or path.endswith("scale"):
            continue
        *stack, rows, columns = np.shape(leaf)
        if config.rank > min(rows, columns):
            raise ValueError(
                f"`rank` must be at most {min(rows, columns)}, the smaller side of {path}, but got "
                f"{config.rank}."
            )
        first = random.standard_normal((*stack, rows, config.rank), np.float32)
        added[f"{path}/a"] = first * np.float32(SCALE)
        added[f"{path}/b"] = np.zeros((*stack, config.rank, columns), np.float32)
    if not added:
        raise ValueError(f"`pattern` must match some leaves, but {config.pattern!r} matches none.")
    return {**params, LORA: unflatten(added)}


def merge_lora(params: Params, config: LoraConfig) -> dict[str, Any]:
    """The tree that the model reads: openpi's, with the changes added."""
    if not config.rank:
        return dict(params)
    plain = dict(leaves({key: value for key, value in params.items() if key != LORA}))
    changes = dict(leaves(params[LORA]))
    for path in {name.rsplit("/", 1)[0] for name in changes}:
        plain[path] = _changed(plain[path], changes[f"{path}/a"], changes[f"{path}/b"], config)
    return unflatten(plain)


def _changed(leaf: ArrayLike, a: ArrayLike, b: ArrayLike, config: LoraConfig) -> Array:
    return jnp.asarray(leaf) + (config.alpha / config.rank) * jnp.matmul(a, b)


def with_lora_frozen(optimiser: OptimiserConfig, lora: LoraConfig) -> OptimiserConfig:
    """The optimiser that leaves adapted leaves alone, and never freezes their changes."""
    patterns = [optimiser.freeze] if optimiser.freeze else []
    if lora.rank:
        patterns.append(lora.pattern)
    if not patterns or (len(patterns) == 1 and not lora.rank):
        return optimiser
    either = "|".join(f"(?:{pattern})" for pattern in patterns)
    return dataclasses.replace(optimiser, freeze=f"^(?!{LORA_PREFIX}).*(?:{either})")


def what_the_model_reads(params: Any, optimiser: OptimiserConfig, lora: LoraConfig) -> Any:
    """The merged tree, through which no gradient reaches a frozen leaf.

    The compiler then leaves out the work for gradients that nobody uses.
    """
    groups = update_groups(params, with_lora_frozen(optimiser, lora).freeze)
    held = jax.tree.map(
        lambda leaf, group: jax.lax.stop_gradient(leaf) if group == FROZEN else leaf, params, groups
    )
    return merge_lora(held, lora)
