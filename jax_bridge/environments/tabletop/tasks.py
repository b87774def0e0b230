"""The instructions: every object into every container."""

import dataclasses

from jax_bridge.environments.environment import Task
from jax_bridge.environments.tabletop.scene import CONTAINERS, OBJECTS, Item

SUITE = "tabletop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """Which object belongs in which container."""

    target: Item
    container: Item

    @property
    def instruction(self) -> str:
        """The goal in words."""
        preposition = "on" if self.container.shape == "plate" else "in"
        return f"put the {self.target.words} {preposition} the {self.container.words}"


def _goals() -> tuple[Goal, ...]:
    """Ordered so that any first few tasks already differ in both object and container."""
    return tuple(
        Goal(target=target, container=CONTAINERS[(i + turn) % len(CONTAINERS)])
        for turn in range(len(CONTAINERS))
        for i, target in enumerate(OBJECTS)
    )


GOALS: tuple[Goal, ...] = _goals()
TASKS: tuple[Task, ...] = tuple(
    Task(
        suite=SUITE,
        task_id=i,
        name=goal.instruction.replace(" ", "_"),
        instruction=goal.instruction,
    )
    for i, goal in enumerate(GOALS)
)
