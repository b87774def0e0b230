"""Arithmetic of one training step: the products that the model needs, nothing computed twice.

A product of [m, k] and [k, n] is 2 m k n operations; a gradient costs twice the forward pass, half
of it for the weights. Norms, softmax and activations are left out, as is usual for MFU (Chowdhery
et al. 2022, PaLM, appendix B). What `remat` computes again does not count.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp

from jax_bridge.ki.objective import Objective
from jax_bridge.pi0.config import ExpertConfig, Pi0Config
from jax_bridge.vocabulary import CAMERAS

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bfloat16 operations a second of one device, from its vendor's data sheet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepLengths:
    """Tokens of a sample, padding included: it is computed, too."""

    prompt: int
    text: int = 0
    fast: int = 0
    cameras: int = len(CAMERAS)
    """That are in the batch."""


def step_flops(
    model: Pi0Config, objective: Objective, lengths: StepLengths, *, frozen_vision: bool = False
) -> float:
    """Operations of one sample's forward and backward pass."""
    targets = lengths.text + lengths.fast if objective.has_tokens else 0
    images = lengths.cameras * model.vision.tokens
    context = images + lengths.prompt + (lengths.text if objective.has_tokens else 0)
    tokens = images + lengths.prompt + targets
    backbone = _expert(model.vlm, model.depth, tokens, tokens)
    logits = 2.0 * targets * model.vocab_size * model.vlm.width
    total = 3 * (backbone + logits) + (1 if frozen_vision else 3) * _vision(model, lengths.cameras)
    if objective.has_flow:
        own = model.suffix_len
        once = _expert(model.action, model.depth, own, context + own) + _adaptive(model)
        total += 3 * objective.flow_samples * once
    return total


def _expert(expert: ExpertConfig, depth: int, queries: int, keys: int) -> float:
    """A pass of one Gemma expert."""
    inner = expert.heads * expert.head_dim
    projections = expert.width * (2 * inner + 2 * expert.kv_heads * expert.head_dim)
    attention = 2 * keys * inner
    mlp = 3 * expert.width * expert.mlp_dim
    return 2.0 * depth * queries * (projections + attention + mlp)


def _adaptive(model: Pi0Config) -> float:
    """Maps of the time to every norm's scale, shift and gate: one time a sample."""
    norms = 2 * model.depth + 1 if model.pi05 else 0
    return 2.0 * norms * 3 * model.action.width**2


def _vision(model: Pi0Config, cameras: int) -> float:
    """SigLIP over the cameras."""
    v, tokens = model.vision, model.vision.tokens
    block = 4 * v.width**2 + 2 * tokens * v.width + 2 * v.width * v.mlp_dim
    ends = 3 * v.patch_size**2 * v.width + v.width * model.vlm.width
    return 2.0 * cameras * tokens * (v.depth * block + ends)


def peak_of(device_kind: str) -> float | None:
    """Operations a second of a device that is known; None for others, CPUs among them."""
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)


@functools.cache
def measured_peak(dtype: str, side: int = 1536, rounds: int = 5) -> float:
    """Operations a second of this device's best matrix product, where nobody publishes them."""
    square = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        product(square, square).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return 2.0 * side**3 / best
