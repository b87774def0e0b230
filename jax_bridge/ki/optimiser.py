"""AdamW, or Muon beside it, with warm-up and cosine decay; gradients are clipped by group.

One global norm would let the flow loss rescale the backbone's update: the groups of `UPDATED`
are clipped each by its own norm, so that nothing of the expert reaches the backbone.
"""

import dataclasses
import re
from typing import Any

import jax
import optax

from jax_bridge.ki.matrices import all_matrix_axes
from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS, group_of

UPDATED = ("backbone", "expert")
"""Groups that are clipped together: all that tokens train, all that the flow trains."""
FROZEN = "frozen"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How parameters move; defaults are openpi's."""

    peak_learning_rate: float = 2.5e-5
    final_learning_rate: float = 2.5e-6
    warmup_steps: int = 1000
    decay_steps: int = 30_000
    """Steps until the cosine has fallen to `final_learning_rate`, warm-up included."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-10
    clip_norm: float = 1.0
    """Largest norm of each group's gradient."""
    muon_learning_rate: float | None = None
    """Peak rate of matrices, which Muon then moves instead of AdamW, on the same schedule; what is
    no matrix (`matrices.py`) stays with Adam (Nesterov's) and `peak_learning_rate`. None: AdamW."""
    backbone_factor: float = 1.0
    """Of the rates of vision, embedder and backbone; below 1 a backbone that knows something keeps
    it while a new action expert learns."""
    freeze: str | None = None
    """A regular expression; leaves whose path it matches anywhere stay as they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.final_learning_rate <= self.peak_learning_rate:
            raise ValueError(
                f"`final_learning_rate` must lie in [0, {self.peak_learning_rate}], the peak, but "
                f"got {self.final_learning_rate}."
            )
        if not 0 <= self.warmup_steps < self.decay_steps:
            raise ValueError(
                f"`warmup_steps` must lie in [0, {self.decay_steps}), the steps of the decay, but "
                f"got {self.warmup_steps}."
            )
        if not self.backbone_factor > 0:
            raise ValueError(
                f"`backbone_factor` must be positive, but got {self.backbone_factor}. To hold the "
                "backbone still, name its leaves in `freeze`."
            )
        if self.muon_learning_rate is not None and not self.muon_learning_rate > 0:
            raise ValueError(
                f"`muon_learning_rate` must be positive, but got {self.muon_learning_rate}. Leave "
                "it out for AdamW alone."
            )
        if not self.clip_norm > 0:
            raise ValueError(f"`clip_norm` must be positive, but got {self.clip_norm}.")
        try:
            re.compile(self.freeze or "")
        except re.error as error:
            raise ValueError(
                f"`freeze` must be a regular expression, but got {self.freeze!r} ({error})."
            ) from error


def schedule(config: OptimiserConfig) -> optax.Schedule:
    """The learning rate at each step."""
    peak = config.peak_learning_rate
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (config.warmup_steps + 1),
        peak_value=peak,
        warmup_steps=config.warmup_steps,
        decay_steps=config.decay_steps,
        end_value=config.final_learning_rate,
    )


def path_of(path: Any) -> str:
    """A leaf's path as `a/b/c`, from jax's key path."""
    return "/".join(str(part.key) for part in path)


def update_groups(params: Any, freeze: str | None) -> Any:
    """The group that each leaf is updated with, as a tree of words.

    Raises:
        ValueError: if `freeze` matches every leaf, or none.
    """
    pattern = re.compile(freeze) if freeze else None

    def word(path: Any, _: Any) -> str:
        name = path_of(path)
        if pattern is not None and pattern.search(name):
            return FROZEN
        return "backbone" if group_of(name) in BACKBONE_GROUPS else "expert"

    words = jax.tree_util.tree_map_with_path(word, params)
    found = [leaf == FROZEN for leaf in jax.tree.leaves(words)]
    if freeze and (all(found) or not any(found)):
        raise ValueError(
            f"`freeze` must match some leaves, but {freeze!r} matches "
            f"{'all' if all(found) else 'none'}. Leaves are named "
            "as in PaliGemma/llm/layers/attn/q_einsum/w."
        )
    return words


def make_optimiser(config: OptimiserConfig, params: Any) -> optax.GradientTransformation:
    """The update of all leaves.

    Args:
        config: how parameters move.
        params: a tree of leaves or shapes; only its paths are read.
    """
    moves = _adamw if config.muon_learning_rate is None else _muon
    factors = {"backbone": config.backbone_factor, "expert": 1.0}
    transforms = {
        name: optax.chain(
            optax.clip_by_global_norm(config.clip_norm), moves(config), optax.scale(factors[name])
        )
        for name in UPDATED
    }
    return optax.multi_transform(
        {**transforms, FROZEN: optax.set_to_zero()}, update_groups(params, config.freeze)
    )


def _adamw(config: OptimiserConfig) -> optax.GradientTransformation:
    return optax.adamw(
        schedule(config), b1=config.b1, b2=config.b2, eps=config.eps,
        weight_decay=config.weight_decay,
    )  # fmt: skip


def _muon(config: OptimiserConfig) -> optax.GradientTransformation:
    """Each matrix moves by the orthogonal matrix nearest to its momentum."""
    rate = schedule(config)
    assert config.muon_learning_rate is not None
    ratio = config.muon_learning_rate / config.peak_learning_rate
    return optax.contrib.muon(
        lambda step: ratio * rate(step), adam_learning_rate=rate, adam_b1=config.b1,
        adam_b2=config.b2, weight_decay=config.weight_decay / ratio,
        adam_weight_decay=config.weight_decay, muon_weight_dimension_numbers=all_matrix_axes,
    )  # fmt: skip
