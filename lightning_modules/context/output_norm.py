"""The LayerNorm that vectors come out of: behind it weight and bias set each dimension's spread.

A LayerNorm gives `weight * z + bias`, where z has mean 0 and variance 1 over the dimensions of each
vector. A dimension whose std is far from |weight|, or whose mean is far from the bias, is one whose
z the policy itself holds still or apart.

Letters: d dimensions.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import nn

from datamodules.cell import Cell
from jax_bridge.shards import DatasetInfo
from jax_bridge.shards.field import CONTEXT
from lightning_modules.context.dimension_table import NEARLY_CONSTANT, DimensionTable

KEY = "output_norm"
"""Entry of `model` in a data set's description."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputNorm:
    """The affine parameters of one LayerNorm."""

    module: str
    """Its path in the model."""
    reaches: str
    """The module whose input it makes."""
    weight: Float32[np.ndarray, " d"]
    bias: Float32[np.ndarray, " d"]

    @classmethod
    def of(cls, model: nn.Module, module: str, reaches: str) -> "OutputNorm":
        """Reads it off a model."""
        norm: Any = model.get_submodule(module)
        weight, bias = (x.detach().float().cpu().numpy() for x in (norm.weight, norm.bias))
        return cls(module=module, reaches=reaches, weight=weight, bias=bias)

    def to_json(self) -> dict[str, str]:
        """Plain types; numbers as base64 of little-endian float32."""
        return {
            "module": self.module, "reaches": self.reaches,
            "weight": _encoded(self.weight), "bias": _encoded(self.bias),
        }  # fmt: skip

    @classmethod
    def from_json(cls, entry: Mapping[str, str]) -> "OutputNorm":
        """Reads what `to_json` wrote."""
        return cls(
            module=entry["module"], reaches=entry["reaches"],
            weight=_decoded(entry["weight"]), bias=_decoded(entry["bias"]),
        )  # fmt: skip


def norm_before(info: DatasetInfo, cell: Cell, width: int) -> OutputNorm | None:
    """The LayerNorm that a cell's vectors came out of; None where none is known."""
    entry = info.model.get(KEY)
    if entry is None or (cell.expert, cell.region) != (CONTEXT, "input"):
        return None
    norm = OutputNorm.from_json(entry)
    words = {
        point.get("name") or point["module"].replace(".", "_")
        for point in info.capture.get("points", [])
        if point["module"] == norm.reaches
    }
    return norm if cell.site in words and len(norm.weight) == width else None


def without_numbers(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's description for people: the norm by its name alone."""
    norm = model.get(KEY)
    return {**model, KEY: norm["module"]} if norm else dict(model)


def facts_of_norm(norm: OutputNorm, table: DimensionTable) -> dict[str, Any]:
    """How the dimensions follow the affine parameters of the norm before them."""
    size = np.abs(norm.weight)
    return {
        "norm": norm.module,
        "norm_weight_quantiles": np.quantile(size, (0, 0.5, 1)).tolist(),
        "norm_bias_quantiles": np.quantile(norm.bias, (0, 0.5, 1)).tolist(),
        "norm_small_weights": int((size < NEARLY_CONSTANT * np.median(size)).sum()),
        "std_follows_weight": _correlation(table.std, size),
        "mean_follows_bias": _correlation(table.mean, norm.bias),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if not one.std() > 0 or not other.std() > 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def words_of_norm(facts: Mapping[str, Any]) -> str:
    """The facts in a sentence."""
    low, middle, high = facts["norm_weight_quantiles"]
    least, _, most = facts["norm_bias_quantiles"]
    follows = [
        f"{what} {facts[word]:.2f}"
        for what, word in (("stds with |weight|", "std_follows_weight"),
                           ("means with the bias", "mean_follows_bias"))
        if facts[word] is not None
    ]  # fmt: skip
    return (
        f"They come out of the LayerNorm `{facts['norm']}`: |weight| {low:.3g} to {high:.3g}, "
        f"median {middle:.3g} ({facts['norm_small_weights']} below 1/20 of it), bias {least:.3g} "
        f"to {most:.3g}. Correlation of the dimensions' {' and '.join(follows) or 'values: none'}."
    )


def _encoded(values: Float32[np.ndarray, " d"]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _decoded(text: str) -> Float32[np.ndarray, " d"]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
