"""Steps of knowledge insulation: each mode's time, rate, MFU, memory and wait for data.

python -m benchmarks.ki [--preset pi05_tiny] [--batch 4] [--rounds 5] [--out FILE]

Goals: `insulate` at most 1.25 times the step of `flow_only` at equal data; data wait at most 2 % of
the step; nothing compiled after the second step. All modes are steps of one state, in turn in one
process, on the same shards of synthetic demonstrations, which are read as `ki fit` reads them
(`--samples 0`: one random batch from memory for ever). Parameters are random. Where the device's
peak is not known (a CPU), the MFU is against a matrix product that is timed here.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks.ki_flops import StepLengths, measured_peak, peak_of, step_flops
from benchmarks.ki_shards import CAMERAS as SHARD_CAMERAS
from benchmarks.ki_shards import open_demonstrations, write_demonstrations
from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.objective import MODES, Objective
from jax_bridge.ki.optimiser import OptimiserConfig
from jax_bridge.ki.sharding import make_mesh
from jax_bridge.ki.train_step import Prepare, StepConfig, as_given
from jax_bridge.ki.training.lora import LoraConfig
from jax_bridge.ki.training.prefetch import Prefetcher
from jax_bridge.ki.training.programs import Programs, build_programs
from jax_bridge.ki.training.run_config import ModelChoice, RunConfig, TrainSettings
from jax_bridge.ki.training.run_folder import surroundings
from jax_bridge.ki.training.starting_weights import starting_weights
from jax_bridge.ki.training.stream import BatchStream, DataFacts, HostBatch
from jax_bridge.pi0 import Observation, Pi0Config
from jax_bridge.vocabulary import CAMERAS

GOAL = 1.25
"""Of the step of `insulate` over that of `flow_only`."""
FAST_TOKENS = 64
"""Of every sample, `|` and the end mark included."""


def make_batch(config: Pi0Config, rows: int) -> TrainingBatch:
    """A random batch with FAST targets and no padding."""
    random = np.random.default_rng(0)
    side, keys = config.vision.image_size, [camera.openpi_key for camera in CAMERAS]
    chunk = (rows, config.action_horizon, config.action_dim)

    def ids(length: int) -> np.ndarray:
        return random.integers(3, min(config.vocab_size, 1000), (rows, length), np.int32)

    return TrainingBatch(
        observation=Observation(
            images={k: random.uniform(-1, 1, (rows, side, side, 3)).astype("f4") for k in keys},
            image_masks={key: np.ones(rows, bool) for key in keys},
            state=random.standard_normal((rows, config.action_dim), np.float32),
            tokenized_prompt=ids(config.max_token_len),
            tokenized_prompt_mask=np.ones((rows, config.max_token_len), bool),
            fast_action_tokens=ids(FAST_TOKENS),
            fast_action_mask=np.ones((rows, FAST_TOKENS), bool),
        ),
        actions=random.standard_normal(chunk, np.float32),
        action_mask=np.ones(rows, bool),
        action_is_pad=np.zeros(chunk[:2], bool),
        action_dims=np.ones(config.action_dim, bool),
    )


class Again:
    """The same batch for ever."""

    facts = DataFacts(description={})

    def __init__(self, batch: TrainingBatch) -> None:
        self._batch = batch

    def __next__(self) -> HostBatch:
        return HostBatch(self._batch, (), {})

    def restore(self, position: Any) -> None:
        """Every place is the same."""

    def close(self) -> None:
        """Nothing is open."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """Where batches come from."""

    stream: BatchStream
    prepare: Prepare = as_given
    alone: float | None = None
    """Samples a second of the reading with nothing else to do."""


def make_feed(settings: TrainSettings, arguments: argparse.Namespace, folder: str) -> Feed:
    """Synthetic shards, or one batch in memory."""
    if not arguments.samples:
        return Feed(stream=Again(make_batch(settings.model, settings.run.batch_size)))
    path = write_demonstrations(
        pathlib.Path(folder) / "demos", arguments.samples, arguments.horizon
    )

    def opened() -> Any:
        return open_demonstrations(
            path, settings.model, batch=settings.run.batch_size, fast=FAST_TOKENS,
            threads=arguments.threads, workers=arguments.workers,
        )  # fmt: skip

    alone, batches = opened().stream, max(2, 256 // settings.run.batch_size)
    next(alone)
    begin = time.perf_counter()
    for _ in range(batches):
        next(alone)
    rate = batches * settings.run.batch_size / (time.perf_counter() - begin)
    alone.close()
    data = opened()
    return Feed(stream=data.stream, prepare=data.prepare, alone=rate)


def measure(
    settings: TrainSettings, modes: list[str], arguments: argparse.Namespace, feed: Feed
) -> dict:
    """Times every mode in turn; all are steps of one state."""
    mesh = make_mesh(settings.run.fsdp)
    programs = {
        mode: build_programs(
            dataclasses.replace(settings, objective=_objective(arguments, mode)), mesh, feed.prepare
        )
        for mode in modes
    }
    state = programs[modes[0]].start(starting_weights("random", settings.model, 0))
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    waits: dict[str, list[float]] = {mode: [] for mode in modes}
    tokens: dict[str, int] = {}
    with Prefetcher(feed.stream, mesh, settings.run.read_ahead) as batches:
        for number in range(arguments.rounds + 1):
            for mode in modes:
                state, seconds, waited, told = _timed(
                    programs[mode], state, batches, arguments.steps if number else 2
                )
                tokens[mode] = int(told.counts.tokens)
                if number:
                    times[mode].append(seconds)
                    waits[mode].append(waited / seconds)
    feed.stream.close()
    results = {
        mode: _summary(settings, arguments, mode, times[mode], waits[mode], tokens[mode])
        | {"compiled": _compilations(programs[mode].step)}
        for mode in modes
    }
    return _with_ratios(results, times)


def _with_ratios(results: dict, times: dict[str, list[float]]) -> dict:
    """Adds each mode's step over that of `flow_only`: median of the rounds, least and most."""
    for mode, found in results.items() if "flow_only" in results else ():
        ratios = [a / b for a, b in zip(times[mode], times["flow_only"], strict=True)]
        found["over_flow_only"] = {
            "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios),
        }  # fmt: skip
    return results


def _compilations(program: Any) -> int:
    """How often a jitted function was compiled."""
    return program._cache_size()


def _objective(arguments: argparse.Namespace, mode: str) -> Objective:
    return Objective(
        mode=mode, remat=arguments.remat, token_chunk=arguments.token_chunk,
        flow_samples=arguments.flow_samples,
    )  # fmt: skip


def _timed(programs: Programs, state: Any, batches: Prefetcher, steps: int) -> tuple:
    """Some steps: the new state, seconds a step, seconds of waiting a step, the last report."""
    key, waited, report = jax.random.key(0), 0.0, None
    begin = time.perf_counter()
    for _ in range(steps):
        fetched = next(batches)
        waited += fetched.waited
        state, report = programs.step(state, fetched.batch, key)
    jax.block_until_ready(report)
    return state, (time.perf_counter() - begin) / steps, waited / steps, report


def _summary(
    settings: TrainSettings, arguments: argparse.Namespace, mode: str, seconds: list[float],
    waits: list[float], tokens: int,
) -> dict[str, Any]:  # fmt: skip
    step, rows = statistics.median(seconds), settings.run.batch_size
    cameras = len(SHARD_CAMERAS if arguments.samples else CAMERAS)
    lengths = StepLengths(prompt=settings.model.max_token_len, fast=FAST_TOKENS, cameras=cameras)
    frozen = bool(arguments.freeze and "img" in arguments.freeze)
    flops = rows * step_flops(
        settings.model, _objective(arguments, mode), lengths, frozen_vision=frozen
    )
    peak = arguments.peak_tflops and arguments.peak_tflops * 1e12
    peak = peak or peak_of(jax.devices()[0].device_kind) or measured_peak(settings.model.dtype)
    return {
        "step_s": {"median": step, "min": min(seconds), "max": max(seconds)},
        "samples_per_s": rows / step,
        "tokens_per_s": tokens / step,
        "model_tflops_per_step": flops / 1e12,
        "tflops_per_s": flops / step / 1e12,
        "peak_tflops": peak / 1e12,
        "mfu": flops / step / peak / len(jax.devices()),
        "data_wait_share": statistics.median(waits),
    }


def show(results: dict[str, Any]) -> None:
    """Prints a line a mode."""
    for mode, found in results.items():
        step, over = found["step_s"], found.get("over_flow_only")
        ratio = ""
        if over is not None:
            ratio = f"  {over['median']:.2f} [{over['min']:.2f} ... {over['max']:.2f}] x flow_only"
        print(
            f"  {mode:10} {1e3 * step['median']:9.1f} ms [{1e3 * step['min']:.1f} ... "
            f"{1e3 * step['max']:.1f}]  {found['samples_per_s']:8.2f} samples/s  "
            f"{found['tokens_per_s']:10,.0f} tokens/s  {found['tflops_per_s']:7.3f} TFLOP/s  "
            f"MFU {100 * found['mfu']:.1f} %  wait {100 * found['data_wait_share']:.2f} %  "
            f"compiled {found['compiled']} time(s){ratio}",
            flush=True,
        )


def peak_memory() -> dict[str, float]:
    """In GB."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    counted = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        found["device"] = counted["peak_bytes_in_use"] / 1e9
    return found


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="pi05_tiny")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--rounds", type=int, default=5, help="how often each mode is timed")
    parser.add_argument("--steps", type=int, default=4, help="steps of each timing")
    parser.add_argument("--samples", type=int, default=512, help="in the shards; 0: no shards")
    parser.add_argument("--threads", type=int, default=2, help="that read, in each worker")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--prompt", type=int, default=96, help="tokens of the prompt")
    parser.add_argument("--flow-samples", type=int, default=1)
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--token-chunk", type=int)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--freeze", help="a regular expression, ^PaliGemma/img/ for the vision")
    parser.add_argument("--no-average", action="store_true", help="keep no moving average")
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, help="of one device, for the MFU")
    parser.add_argument("--out", type=pathlib.Path, help="write the result there as JSON")
    return parser.parse_args()


def main() -> None:
    """Measures the modes, prints them and writes JSON."""
    arguments = parse()
    choice = ModelChoice(
        preset=arguments.preset, dtype=arguments.dtype, action_horizon=arguments.horizon,
        max_token_len=arguments.prompt,
    )  # fmt: skip
    settings = TrainSettings(
        model=choice.config(),
        optimiser=OptimiserConfig(freeze=arguments.freeze),
        step=StepConfig(
            ema_decay=None if arguments.no_average else 0.99, micro_batches=arguments.micro_batches
        ),
        lora=LoraConfig(rank=arguments.lora_rank),
        run=RunConfig(batch_size=arguments.batch, fsdp=arguments.fsdp),
    )
    about = {**surroundings(), "machine": platform.machine(), "cpus": os.cpu_count()}
    print(f"{arguments.preset} {arguments.dtype}, batch {arguments.batch}: {about['devices']}")
    with tempfile.TemporaryDirectory() as folder:
        feed = make_feed(settings, arguments, folder)
        if feed.alone is not None:
            print(f"  reading alone: {feed.alone:.1f} samples/s", flush=True)
        results = measure(settings, arguments.modes, arguments, feed)
    show(results)
    memory = peak_memory()
    print("  peak memory: " + ", ".join(f"{k} {v:.2f} GB" for k, v in memory.items()))
    if arguments.out:
        entry = {
            "about": about,
            "settings": {k: str(v) for k, v in vars(arguments).items()},
            "goal": {"insulate over flow_only": GOAL, "data_wait_share": 0.02},
            "results": results,
            "peak_memory_gb": memory,
            "reading_alone_samples_per_s": feed.alone,
        }
        arguments.out.write_text(json.dumps(entry, indent=2) + "\n")


if __name__ == "__main__":
    main()
