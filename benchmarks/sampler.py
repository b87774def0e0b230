"""Milliseconds of one call of the sampler, and the two floors that the hardware sets.

python -m benchmarks.sampler [--presets pi0 pi05] [--dtype bfloat16] [--batch 1] [--steps 10]
    [--calls 30] [--depth N] [--vocabulary N] [--out FILE]

Real shapes, three cameras, random weights; plain and fused attention are called in turn, results
stay on the device. `--depth` and `--vocabulary` leave blocks and words out where the machine is
small: `--depth 2 --vocabulary 8192 --dtype float32 --calls 5` fits two CPU cores.

Floors: no call can be faster than its bytes over the measured rate of a copy, nor than its
operations over the measured rate of a large matrix product. Bytes are those of parameters and of
the cache of keys and values, each read once a pass: images and prompt once, the action expert once
a flow step. Operations are those of matrix products. `both` adds up, for the prefix and for the
steps, the larger of the two: what a program reaches that never waits.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.capture import make_inputs
from jax_bridge.pi0 import Pi0, Pi0Config, param_shapes
from jax_bridge.pi0.fused_attention import choose_attention

GOAL_MS = 25.0
"""At batch 1, ten steps, bfloat16, on a card of H100's class, for pi0 as released."""


class Work(NamedTuple):
    """What a part of a call cannot do without."""

    bytes: float
    flops: float


def work(config: Pi0Config, batch: int, steps: int) -> dict[str, Work]:
    """Of images and prompt, and of all flow steps."""
    tokens = {
        "vision": config.image_tokens,
        "vlm": config.prefix_len,
        "action": config.suffix_len,
    }
    numbers = _matrix_numbers(config)
    seen = config.prefix_len + config.suffix_len
    heads = config.vlm.heads * config.vlm.head_dim
    mixing = {  # scores and mixed values: two products, two operations a number
        "vision": 4 * config.image_tokens * config.vision.tokens * config.vision.width
        * config.vision.depth,
        "vlm": 4 * config.prefix_len**2 * heads * config.depth,
        "action": 4 * config.suffix_len * seen * heads * config.depth,
    }  # fmt: skip
    flops = {part: batch * (2 * numbers[part] * tokens[part] + mixing[part]) for part in tokens}
    size = config.jax_dtype.itemsize
    cache = 2 * batch * config.prefix_len * config.vlm.kv_heads * config.vlm.head_dim * config.depth
    return {
        "prefix": Work(
            size * (numbers["vision"] + numbers["vlm"] + cache), flops["vision"] + flops["vlm"]
        ),
        "steps": Work(size * steps * (numbers["action"] + cache), steps * flops["action"]),
    }


def _matrix_numbers(config: Pi0Config) -> dict[str, int]:
    """Numbers of the matrices that every token of a part is multiplied with.

    Left out is what is next to nothing: norms, biases, adaRMS (once a call), rows of tables.
    """
    found = {"vision": 0, "vlm": 0, "action": 0}
    for path, shape in param_shapes(config).items():
        if path.endswith(("bias", "scale", "_embedding")) or "norm" in path:
            continue
        own = "action" if "_1/" in path or not path.startswith("PaliGemma") else "vlm"
        found["vision" if "/img/" in path else own] += math.prod(shape)
    return found


def copy_rate(size: int, calls: int) -> float:
    """Bytes a second, read and written, of adding 1 to a large array."""
    block = jnp.zeros(size // 4, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * size / min(_seconds(lambda: add(block), calls))


def product_rate(side: int, dtype: str, calls: int) -> float:
    """Operations a second of a square matrix product, as the model multiplies."""
    matrix = jnp.ones((side, side), dtype)
    with jax.default_matmul_precision("highest"):
        multiply = jax.jit(lambda x: x @ x)
        return 2 * side**3 / min(_seconds(lambda: multiply(matrix), calls))


def _seconds(function: Callable[[], Any], calls: int) -> list[float]:
    """Of each call but the first two, results on the device."""
    found = []
    for _ in range(calls + 2):
        start = time.perf_counter()
        jax.block_until_ready(function())
        found.append(time.perf_counter() - start)
    return found[2:]


def make_config(preset: str, arguments: argparse.Namespace) -> Pi0Config:
    """The preset, with blocks and words left out as asked."""
    config = Pi0Config.preset(preset, dtype=arguments.dtype)
    if arguments.vocabulary:
        config = dataclasses.replace(config, vocab_size=arguments.vocabulary)
    if not arguments.depth:
        return config
    parts = {
        name: dataclasses.replace(part, depth=min(part.depth, arguments.depth))
        for name in ("vision", "vlm", "action")
        if (part := getattr(config, name))
    }
    return dataclasses.replace(config, **parts)


def measure(preset: str, arguments: argparse.Namespace, rates: dict[str, float]) -> dict[str, Any]:
    """Both paths of attention in turn, and the floors."""
    config = make_config(preset, arguments)
    observation, noise = make_inputs(config)
    observation, noise = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, arguments.batch, axis=0), (observation, noise)
    )
    params = Pi0(config).init(0)
    times: dict[str, list[float]] = {"plain": [], "fused": []}
    for number in range(arguments.calls + 2):
        for path, found in times.items():
            start = time.perf_counter()
            jax.block_until_ready(
                Pi0(config, attention=path).sample_actions(
                    params, observation, noise=noise, num_steps=arguments.steps
                )
            )
            if number > 1:
                found.append(1e3 * (time.perf_counter() - start))
    parts = work(config, arguments.batch, arguments.steps)
    floors = {name: _floors(part, rates) for name, part in parts.items()}
    return {
        "preset": preset,
        "blocks": {name: getattr(config, name).depth for name in ("vision", "vlm", "action")},
        "vocabulary": config.vocab_size,
        "auto_is": "fused" if choose_attention("auto", config) else "plain",
        "ms": {
            path: {"median": statistics.median(t), "min": min(t), "max": max(t)}
            for path, t in times.items()
        },
        "work": {name: part._asdict() for name, part in parts.items()},
        "floor_ms": {
            kind: sum(part[kind] for part in floors.values()) for kind in ("bytes", "flops", "both")
        },
    }


def _floors(part: Work, rates: dict[str, float]) -> dict[str, float]:
    """Milliseconds."""
    moved, computed = (
        1e3 * part.bytes / rates["bytes_per_s"], 1e3 * part.flops / rates["flops_per_s"],
    )  # fmt: skip
    return {"bytes": moved, "flops": computed, "both": max(moved, computed)}


def show(result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Prints one model's figures."""
    blocks = "+".join(map(str, result["blocks"].values()))
    print(
        f"{result['preset']} {arguments.dtype}, batch {arguments.batch}, {arguments.steps} steps, "
        f"{blocks} blocks (vision, vlm, action), auto is {result['auto_is']}"
    )
    for path, ms in result["ms"].items():
        print(
            f"  {path:6} {ms['median']:9.2f} ms  ({ms['min']:.2f} to {ms['max']:.2f})  "
            f"{ms['median'] / result['floor_ms']['both']:.2f} of the floor of both"
        )
    print("  floors " + ", ".join(f"{k} {v:.2f} ms" for k, v in result["floor_ms"].items()))
    if not arguments.depth:
        print(f"  goal   {GOAL_MS:.0f} ms for pi0 in bfloat16 at batch 1 on an H100-class card")


def main() -> None:
    """Measures rates and models, prints them and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=["pi0", "pi05"])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--depth", type=int, default=0, help="blocks of each stack; 0: all")
    parser.add_argument("--vocabulary", type=int, default=0, help="rows of the table; 0: all")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    on_cpu = jax.default_backend() == "cpu"
    rates = {
        "bytes_per_s": copy_rate(2**28 if on_cpu else 2**31, 10),
        "flops_per_s": product_rate(2048 if on_cpu else 8192, arguments.dtype, 5),
    }
    machine = {
        "device": jax.devices()[0].device_kind, "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(), "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"), **rates,
    }  # fmt: skip
    print(", ".join(f"{k} {v:.3g}" if k in rates else f"{k} {v}" for k, v in machine.items()))
    results = []
    for preset in arguments.presets:
        results.append(measure(preset, arguments, rates))
        show(results[-1], arguments)
    if arguments.out:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        entry = {"benchmark": "sampler", "arguments": settings, "machine": machine}
        arguments.out.write_text(json.dumps({**entry, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
