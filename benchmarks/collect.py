"""What a collection spends its time on, and what more simulator processes give.

python -m benchmarks.collect [--preset pi05_tiny] [--capture pooled] [--workers 1 2 4]
    [--batch 8] [--episodes 8] [--max-steps 40] [--rounds 3] [--out FILE]

Two parts, both on the built-in simulator with random weights: (1) one simulator in this process:
the shares of simulator, model, device-to-host copies and writing, and how much of the writing the
run waited for; (2) the same episodes without and with 1, 2, 4 ... processes, in turn.
"""

import argparse
import functools
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from benchmarks.interleaved import interleave, show
from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.rollouts import lock_step
from jax_bridge.rollouts.collect import Collector, CollectPlan, CollectReport
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.simulator_pool import SimulatorPool
from jax_bridge.rollouts.writing_thread import WritingThread
from jax_bridge.shards import EpisodeRecorder


class Clock:
    """Seconds by word."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls = 0

    def timed(self, word: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added to a word."""

        @functools.wraps(function)
        def wrapped(*args: Any, **arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **arguments)
            finally:
                spent = time.perf_counter() - start
                self.seconds[word] = self.seconds.get(word, 0.0) + spent

        return wrapped

    @contextmanager
    def patched(self, *places: tuple[Any, str, str]) -> Iterator[None]:
        """Times functions inside a block: (class or module, name, word)."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        for owner, name, word in places:
            setattr(owner, name, self.timed(word, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, method in before:
                setattr(owner, name, method)


class TimedPolicy(Pi0Policy):
    """Waits for the model before the copy to the host, so that both can be told apart."""

    clock = Clock()

    def _sample(self, inputs: Any, noise: Any, capture: CaptureSpec | None) -> Any:
        self.clock.calls += 1
        get = jax.device_get

        def waited(values: Any) -> Any:
            jax.block_until_ready(values)
            return self.clock.timed("device to host", get)(values)

        jax.device_get = waited
        try:
            return self.clock.timed("sampler", super()._sample)(inputs, noise, capture)
        finally:
            jax.device_get = get


class Silent:
    """Shows nothing."""

    def update(self, report: CollectReport) -> None:
        """Called after every episode."""


IN_PROCESS = (
    *((Tabletop, name, "simulator") for name in ("reset", "step", "observe", "truth")),
    (TimedPolicy, "infer", "policy"),
    (EpisodeRecorder, "append", "writing"),
    (EpisodeRecorder, "finish", "ending episodes"),
    (WritingThread, "submit", "waiting for the writing"),
    (WritingThread, "drain", "waiting for the writing"),
)


def shares(policy: TimedPolicy, plan: CollectPlan) -> dict[str, Any]:
    """Where the time of one simulator in this process goes."""
    policy.clock = clock = Clock()
    with tempfile.TemporaryDirectory() as folder, clock.patched(*IN_PROCESS):
        start = time.perf_counter()
        report = Collector(Tabletop(), policy, plan).run(f"{folder}/data", Silent())
        wall = time.perf_counter() - start
    spent = clock.seconds
    model = spent["sampler"] - spent["device to host"]
    return {
        "wall_s": wall,
        "samples": report.samples,
        "calls_per_s": clock.calls / wall,
        "shares": {
            "simulator": spent["simulator"] / wall,
            "model": model / wall,
            "device to host": spent["device to host"] / wall,
            "before and after the model": (spent["policy"] - spent["sampler"]) / wall,
            "writing, in its thread": spent["writing"] / wall,
            "waiting for the writing": spent["waiting for the writing"] / wall,
            "ending episodes": spent["ending episodes"] / wall,
        },
    }


def with_workers(policy: Pi0Policy, plan: CollectPlan, workers: int) -> float:
    """Policy calls a second; starting the processes is part of it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        collector = lock_step.LockStepCollector(Tabletop(), Tabletop, policy, plan, workers=workers)
        report = collector.run(f"{folder}/data", Silent())
        return report.samples / (time.perf_counter() - start)


def without_workers(policy: Pi0Policy, plan: CollectPlan) -> float:
    """Policy calls a second of one simulator in this process."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = Collector(Tabletop(), policy, plan).run(f"{folder}/data", Silent())
        return report.samples / (time.perf_counter() - start)


def waiting_share(policy: TimedPolicy, plan: CollectPlan, workers: int) -> dict[str, float]:
    """Shares of one run with workers: the model, and waiting for simulators."""
    policy.clock = clock = Clock()
    places = (
        (SimulatorPool, "gather", "simulators"), (SimulatorPool, "__init__", "starting"),
        (lock_step, "infer_rows", "policy"),
    )  # fmt: skip
    with clock.patched(*places):
        start = time.perf_counter()
        with_workers(policy, plan, workers)
        wall = time.perf_counter() - start
    return {name: clock.seconds[name] / wall for name in ("policy", "simulators", "starting")}


def make_plan(arguments: argparse.Namespace, batch: int) -> CollectPlan:
    """Episodes of one task, driven by the policy."""
    return CollectPlan(
        tasks=range(1),
        episodes=range(arguments.episodes),
        capture=CaptureSpec.preset(arguments.capture),
        protocol=RolloutProtocol(max_steps=arguments.max_steps, batch=batch),
    )


def show_shares(found: dict[str, Any]) -> None:
    """Prints what `shares` found."""
    print(f"one simulator in this process: {found['calls_per_s']:.2f} policy calls/s")
    for name, share in found["shares"].items():
        print(f"  {name:28} {100 * share:5.1f} %")


def main() -> None:
    """Measures both parts, prints them and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="pi05_tiny")
    parser.add_argument("--capture", default="pooled")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    policy = TimedPolicy(preset=arguments.preset)
    alone, batched = make_plan(arguments, 1), make_plan(arguments, arguments.batch)
    shares(policy, alone)  # compiles
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"arguments": {k: str(v) for k, v in vars(arguments).items()}, "machine": {
        "jax": jax.__version__, "device": jax.devices()[0].device_kind,
    }, "in_process": shares(policy, alone)}  # fmt: skip
    show_shares(result["in_process"])
    sides = {
        f"{n} workers, batch {arguments.batch}": functools.partial(with_workers, policy, batched, n)
        for n in reversed(arguments.workers)
    }
    sides["no workers, batch 1"] = functools.partial(without_workers, policy, alone)
    result["workers"] = interleave(sides, arguments.rounds, unit="policy calls/s")
    show("simulators in processes", result["workers"])
    for n in arguments.workers:
        result[f"shares_{n}"] = waiting_share(policy, batched, n)
        parts = ", ".join(f"{k} {100 * v:.0f} %" for k, v in result[f"shares_{n}"].items())
        print(f"  {n} workers: {parts}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_beyond_first_run_mb"] = (peak - loaded) / 1024
    print(f"peak memory beyond the first run: {result['peak_beyond_first_run_mb']:.0f} MB")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
