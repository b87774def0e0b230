"""What a step told, as plain numbers: for the guard, the log and the checkpoint."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from jax_bridge.ki.train_step import StepReport


class StepRecord(NamedTuple):
    """One step; JSON keeps it bit for bit, so that a log line can span a stop."""

    losses: dict[str, float]
    flow_sum_by_time: list[float]
    flow_count_by_time: list[float]
    gradient_norm: dict[str, float]
    counts: dict[str, int]

    @classmethod
    def of(cls, report: StepReport) -> "StepRecord":
        """Waits for the step."""
        told: StepReport = jax.device_get(report)
        losses = told.losses._asdict()
        sums, counts = losses.pop("flow_sum_by_time"), losses.pop("flow_count_by_time")
        return cls(
            losses={name: float(value) for name, value in losses.items()},
            flow_sum_by_time=sums.tolist(),
            flow_count_by_time=counts.tolist(),
            gradient_norm={group: float(norm) for group, norm in told.gradient_norm.items()},
            counts={name: int(count) for name, count in told.counts._asdict().items()},
        )

    def named(self) -> Iterator[tuple[str, float]]:
        """What must be finite."""
        yield from ((f"loss/{name}", value) for name, value in self.losses.items())
        yield from ((f"gradient_norm/{name}", norm) for name, norm in self.gradient_norm.items())

    def to_json(self) -> dict[str, Any]:
        """A dict of plain numbers."""
        return self._asdict()
