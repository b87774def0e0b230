"""How far samples are read: an epoch and one integer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax_bridge.shards.read_plan import ReadPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadPosition:
    """Where a reading of a `ReadPlan` stands, whatever the number of ranks and workers."""

    epoch: int
    done: int
    """Rows of this epoch's order that are done, over all ranks."""
    samples: int
    """Rows of the plan; all of them are done after an epoch, also those that were dropped."""
    seed: int
    """Of the plan's order."""

    @classmethod
    def of_plan(cls, plan: ReadPlan, *, epoch: int, done: int) -> "ReadPosition":
        """A position in a plan."""
        return cls(epoch=epoch, done=done, samples=len(plan), seed=plan.seed)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "ReadPosition":
        """Reads what `to_json` wrote."""
        return cls(**{field.name: int(state[field.name]) for field in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, int]:
        """Plain numbers, for a checkpoint."""
        return dataclasses.asdict(self)

    def start_in(self, plan: ReadPlan) -> int:
        """Rows of this epoch that are done in a plan.

        Raises:
            ValueError: if the plan has another order, in which the position means nothing.
        """
        if self.done >= self.samples:
            return len(plan)
        if (self.samples, self.seed) != (len(plan), plan.seed):
            raise ValueError(
                f"`position` must lie in the order that it was saved in, {self.samples} samples of "
                f"seed {self.seed}, but got {len(plan)} of seed {plan.seed}. Give the same data, "
                "selection and seed, or go on from an epoch's end."
            )
        return self.done
