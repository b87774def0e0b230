"""What capture costs: the sampler alone against the same call with a preset.

python -m benchmarks.capture [--presets pi0_tiny pi05_tiny] [--calls 30] [--out FILE]

Goals at batch 1, ten flow steps: `pooled` at most 1.05 times the sampler alone, `tokens` at most
1.20 times. Calls are interleaved in one process; parameters and inputs are random.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from typing import Any

import jax
import numpy as np

from jax_bridge.pi0 import CaptureSpec, Observation, Pi0, Pi0Config
from jax_bridge.vocabulary import CAMERAS

GOALS = {"pooled": 1.05, "tokens": 1.20}


def make_inputs(config: Pi0Config) -> tuple[Observation, np.ndarray]:
    """A random observation of one robot, and noise."""
    rng = np.random.default_rng(0)
    side, length = config.vision.image_size, config.max_token_len
    cameras = [camera.openpi_key for camera in CAMERAS]
    place = np.arange(length)[None]
    observation = Observation(
        images={key: rng.uniform(-1, 1, (1, side, side, 3)).astype(np.float32) for key in cameras},
        image_masks={key: np.ones(1, bool) for key in cameras},
        state=rng.standard_normal((1, config.action_dim), np.float32),
        tokenized_prompt=rng.integers(3, 1000, (1, length), np.int32),
        tokenized_prompt_mask=place < length * 3 // 4,
        instruction_mask=place < length // 4,
        state_text_mask=(place >= length // 4) & (place < length // 2),
    )
    noise = rng.standard_normal((1, config.action_horizon, config.action_dim), np.float32)
    return jax.device_put(observation), jax.device_put(noise)


def time_call(model: Pi0, params: dict, inputs: tuple, capture: CaptureSpec | None) -> float:
    """Milliseconds of one call, results on the device."""
    start = time.perf_counter()
    jax.block_until_ready(
        model.sample_actions(params, inputs[0], noise=inputs[1], capture=capture)
        if capture
        else model.sample_actions(params, inputs[0], noise=inputs[1])
    )
    return 1e3 * (time.perf_counter() - start)


def measure(preset: str, dtype: str, calls: int) -> dict[str, Any]:
    """Interleaved timings of one model: plain, pooled, tokens, plain, ..."""
    config = Pi0Config.preset(preset, dtype=dtype)
    model = Pi0(config)
    params, inputs = model.init(0), make_inputs(config)
    sides = {"plain": None} | {name: CaptureSpec.preset(name) for name in GOALS}
    for capture in sides.values():
        for _ in range(3):
            time_call(model, params, inputs, capture)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(calls):
        for name, capture in sides.items():
            times[name].append(time_call(model, params, inputs, capture))
    plain = statistics.median(times["plain"])
    sizes = {name: spec.bytes_per_call(config) if spec else 0 for name, spec in sides.items()}
    return {
        "preset": preset,
        "dtype": dtype,
        "calls": calls,
        "sides": {
            name: {
                "median_ms": statistics.median(t),
                "min_ms": min(t),
                "max_ms": max(t),
                "ratio": statistics.median(t) / plain,
                "ratio_of_minima": min(t) / min(times["plain"]),
                "latent_bytes": sizes[name],
                "goal": GOALS.get(name),
            }
            for name, t in times.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    """Prints one model's table."""
    print(f"{result['preset']} {result['dtype']}, batch 1, 10 flow steps, {result['calls']} calls")
    for name, side in result["sides"].items():
        goal = f"  (goal {side['goal']:.2f})" if side["goal"] else ""
        print(
            f"  {name:7s} {side['median_ms']:8.2f} ms  [{side['min_ms']:.2f} ... "
            f"{side['max_ms']:.2f}]  {side['latent_bytes'] / 1e6:6.2f} MB"
            f"  ratio {side['ratio']:.3f}{goal}"
        )


def main() -> None:
    """Measures every model, prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--presets", nargs="+", default=["pi0_tiny", "pi05_tiny"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    machine = {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results = []
    for preset in arguments.presets:
        results.append(measure(preset, arguments.dtype, arguments.calls))
        show(results[-1])
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2))


if __name__ == "__main__":
    main()
