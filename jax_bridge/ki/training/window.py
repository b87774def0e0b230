"""The steps since the last line of the log, as the numbers of that line."""

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS
from jax_bridge.ki.training.step_record import StepRecord

Line = dict[str, float]
"""Numbers by name, as TensorBoard shows them."""
COUNTED_BY: dict[str, str] = {
    **dict.fromkeys(("fast", "fast_accuracy", "exact_chunks"), "fast_samples"),
    **dict.fromkeys(("text", "text_accuracy", "exact_answers"), "text_samples"),
    "flow": "action_samples",
}
"""Losses that only some samples of a mixture have, by the count of those."""
ANSWERS = ("text_accuracy", "exact_answers")
"""What is not logged where nobody learns answers."""
LOGGED: dict[str, str] = {
    **{name: f"loss/{name}" for name in ("total", "tokens", "fast", "text", "flow")},
    "fast_accuracy": "fast/accuracy", "exact_chunks": "fast/exact_chunks",
    "text_accuracy": "text/accuracy", "exact_answers": "text/exact_answers",
}  # fmt: skip


class LogWindow:
    """Collects what steps tell.

    Args:
        batch_size: samples a step.
        clip_norm: norm above which a group's gradient is cut.
        records: steps that an earlier process had taken in.
    """

    def __init__(
        self, batch_size: int, clip_norm: float, records: Iterable[dict[str, Any]] = ()
    ) -> None:
        self._batch_size, self._clip_norm = batch_size, clip_norm
        self._records = [StepRecord(**record) for record in records]
        self._begin_timing()

    def _begin_timing(self) -> None:
        self._waited, self._steps, self._tokens = 0.0, 0, 0
        self._begin = time.perf_counter()

    def add(self, record: StepRecord, waited: float) -> None:
        """Takes one step in, which stood still for its data for so many seconds."""
        self._records.append(record)
        self._waited += waited
        self._steps += 1
        self._tokens += record.counts["tokens"]

    def pause(self, seconds: float) -> None:
        """Leaves out time in which something else was done: a checkpoint, a look of a watcher."""
        self._begin += seconds

    def to_json(self) -> list[dict[str, Any]]:
        """The steps that no line holds yet."""
        return [record.to_json() for record in self._records]

    @property
    def loss(self) -> float | None:
        """Mean total loss of these steps; None if there is none."""
        return _mean([r.losses["total"] for r in self._records]) if self._records else None

    def line(self) -> Line:
        """Averages over the steps, and begins anew.

        Returns:
            Losses, accuracies, gradient norms, share of clipped steps, rates and memory.
        """
        line = {**_losses(self._records), **_gradients(self._records, self._clip_norm)}
        line |= {**_tokens(self._records), **self._speed(), **memory()}
        self._records = []
        self._begin_timing()
        return line

    def _speed(self) -> Line:
        seconds = max(time.perf_counter() - self._begin, 1e-9)
        return {
            "speed/samples_per_s": self._batch_size * self._steps / seconds,
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/step_s": seconds / max(self._steps, 1),
            "speed/data_wait_share": self._waited / seconds,
        }


def _losses(records: list[StepRecord]) -> Line:
    means = mean_losses([r.losses for r in records], [r.counts for r in records])
    line = {name: means[key] for key, name in LOGGED.items() if key in means}
    sums = np.sum([r.flow_sum_by_time for r in records], axis=0)
    counts = np.sum([r.flow_count_by_time for r in records], axis=0)
    for place in np.flatnonzero(counts):
        low, high = place / len(counts), (place + 1) / len(counts)
        line[f"flow_by_time/{low:.1f}-{high:.1f}"] = float(sums[place] / counts[place])
    return line


def mean_losses(losses: Sequence[Mapping[str, float]], counts: Sequence[Mapping[str, int]]) -> Line:
    """Means over batches; what only some samples have, by how many of each batch have it."""
    answered = any(count["text_samples"] for count in counts)
    means: Line = {}
    for name in losses[0]:
        part = COUNTED_BY.get(name)
        weights = [1 if part is None else count[part] for count in counts]
        total = sum(weight * loss[name] for weight, loss in zip(weights, losses, strict=True))
        if answered or name not in ANSWERS:
            means[name] = float(total / max(sum(weights), 1))
    return means


def _gradients(records: list[StepRecord], clip_norm: float) -> Line:
    groups = records[0].gradient_norm
    line = {f"gradient_norm/{g}": _mean([r.gradient_norm[g] for r in records]) for g in groups}
    for name, parts in (("backbone", BACKBONE_GROUPS), ("expert", ("expert",))):
        norms = [np.sqrt(sum(r.gradient_norm[p] ** 2 for p in parts)) for r in records]
        line[f"clipped/{name}"] = float(np.mean([norm > clip_norm for norm in norms]))
    return line


def _tokens(records: list[StepRecord]) -> Line:
    samples = sum(r.counts["fast_samples"] for r in records)
    if not samples:
        return {}
    return {
        "fast/tokens_mean": sum(r.counts["fast_tokens"] for r in records) / samples,
        "fast/tokens_max": float(max(r.counts["longest_fast"] for r in records)),
    }


def _mean(values: list[float]) -> float:
    return float(np.mean(values, dtype=np.float64))


def memory() -> Line:
    """Peaks so far: of this process, and of its first device where the device counts."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = {"memory/host_peak_gb": peak / 1e9}
    counted = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in counted:
        line["memory/device_peak_gb"] = counted["peak_bytes_in_use"] / 1e9
    return line
