"""What `vla-lens ki fit` writes into a checkpoint beside openpi's files: `assets/model.json`.

It holds every size of the model and how its inputs were prepared, so that a checkpoint acts with no
further flag. openpi ignores it.
"""

import dataclasses
import json
import pathlib
from typing import Any

from jax_bridge.pi0.config import PRESETS, Pi0Config
from jax_bridge.policies.conventions import Recipe
from jax_bridge.policies.tokenizers import check_layout

MODEL_FILE = "assets/model.json"
OWN_SIZES = "custom"
"""Name of sizes that are no preset's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Sizes and preparation of a checkpoint."""

    config: Pi0Config
    tokenizer: str | None = None
    convention: str | None = None
    recipe: Recipe | None = None
    fast_skip: int | None = None
    """Ids at the end of the embedding table that FAST leaves alone; None without FAST."""
    fast_length: int | None = None
    """Most FAST tokens of a chunk, `|` and the end mark included."""
    prompt_layout: str = "ki"
    """One of `PROMPT_LAYOUTS`."""
    cameras: tuple[str, ...] | None = None
    """Cameras that some of the training data had; None where that was not noted."""

    @property
    def preset(self) -> str:
        """Name of the architecture: a preset's, whatever its horizon, or `custom`."""
        free = ("dtype", "action_horizon", "max_token_len")
        for name in PRESETS:
            own = {key: getattr(self.config, key) for key in free}
            if Pi0Config.preset(name, **own) == self.config:
                return name
        return OWN_SIZES


def read_trained_model(folder: pathlib.Path) -> TrainedModel | None:
    """Reads a checkpoint's `model.json`; None where there is none (it is openpi's own).

    Raises:
        ValueError: if it cannot be read.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        policy: dict[str, Any] = dict(entry["policy"])
        recipe = policy.get("recipe")
        return TrainedModel(
            config=Pi0Config.from_json(entry["config"]),
            tokenizer=policy.get("tokenizer"),
            convention=policy.get("convention"),
            recipe=None if recipe is None else _recipe(recipe),
            fast_skip=policy.get("fast_skip"),
            fast_length=policy.get("fast_length"),
            prompt_layout=check_layout(policy.get("prompt_layout", "ki")),
            cameras=None if (seen := policy.get("cameras")) is None else tuple(map(str, seen)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`checkpoint` must have a readable {MODEL_FILE}, but that of {str(folder)!r} is not "
            f"({type(error).__name__}: {error}). Copy the checkpoint again."
        ) from error


def _recipe(entry: dict[str, Any]) -> Recipe:
    delta = entry.get("delta_mask")
    return Recipe(**{**entry, "delta_mask": None if delta is None else tuple(map(bool, delta))})
