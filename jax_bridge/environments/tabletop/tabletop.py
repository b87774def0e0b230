"""The built-in simulator: a small table with coloured things, numpy only."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.environment import RobotObservation, StepResult, Task
from jax_bridge.environments.tabletop.demonstrator import TabletopDemonstrator
from jax_bridge.environments.tabletop.moments import displace, stir
from jax_bridge.environments.tabletop.physics import (
    MAX_OPENING,
    MOVE_PER_STEP,
    TURN_PER_STEP,
    World,
)
from jax_bridge.environments.tabletop.renderer import Renderer
from jax_bridge.environments.tabletop.scene import draw_scene
from jax_bridge.environments.tabletop.tasks import GOALS, SUITE, TASKS

ACTION_DIM = 7
_PROTOCOL = 1
"""Counts up whenever scenes, physics, pictures or the demonstrator change."""

Hand = Literal["start", "anywhere"]
"""Where the hand is when an episode begins."""
View = Literal["both", "base"]
"""Whose pictures are shown: those of the outer and the wrist camera, or of the outer one alone."""

_SCATTERED, _DISPLACED = 1, 2
"""Keep what `scatter` and a hand anywhere draw apart from what the scene draws."""


class Tabletop:
    """Coloured objects and containers on a table, a hand, two cameras.

    State (8): position of the hand (metres), its turn as axis times angle (radians), both
    fingers' positions (metres). Action (7), each in [-1, 1] and clipped: position change (x away
    from the robot, y to its left, z up), turn change (only the third, about the vertical, has an
    effect: the hand stays upright), fingers (-1 open, +1 close).
    """

    suite = SUITE
    tasks: Sequence[Task] = TASKS
    episodes: int | None = None
    max_steps = 100

    def __init__(self, *, image_size: int = 128, hand: Hand = "start", view: View = "both") -> None:
        """Makes the table; nothing lies on it before `reset`.

        Args:
            image_size: Height and width of the cameras' pictures, in pixels.
            hand: Where episodes begin: above the middle of the table (`start`), or `anywhere`
                over it, so that where the hand is does not tell where it is going.
            view: Pictures of `both` cameras, or only of the outer one (`base`).

        Raises:
            ValueError: if `image_size` is not positive.
        """
        if image_size <= 0:
            raise ValueError(f"`image_size` must be positive, but got {image_size}.")
        self.image_size = image_size
        self.hand: Hand = hand
        self.view: View = view
        self._renderer = Renderer(image_size=image_size, wrist=view == "both")
        self._world: World | None = None
        self._goal = GOALS[0]
        self._instruction = ""

    def describe(self) -> dict[str, Any]:
        """Everything that a start, a picture or a step depends on."""
        return {
            "name": SUITE,
            "suite": self.suite,
            "protocol": _PROTOCOL,
            "cameras": ["base", "left_wrist"] if self.view == "both" else ["base"],
            "image_size": self.image_size,
            "settling_steps": 0,
            "move_per_step": MOVE_PER_STEP,
            "turn_per_step": TURN_PER_STEP,
            # Data sets that were begun before there was a choice can be continued.
            **({} if self.hand == "start" else {"hand": self.hand}),
        }

    def reset(self, *, task_id: int, episode: int, seed: int) -> None:
        """Starts an episode; the scene depends on episode and seed, the task on nothing else.

        Raises:
            ValueError: if there is no such task, or episode or seed are negative.
        """
        if not 0 <= task_id < len(TASKS):
            raise ValueError(
                f"`task_id` must be in 0 to {len(TASKS) - 1} ({SUITE} has {len(TASKS)} tasks), "
                f"but got {task_id}."
            )
        for name, value in (("episode", episode), ("seed", seed)):
            if value < 0:
                raise ValueError(f"`{name}` must not be negative, but got {value}.")
        self._goal, self._instruction = GOALS[task_id], TASKS[task_id].instruction
        self._world = World(draw_scene(episode=episode, seed=seed))
        if self.hand == "anywhere":
            displace(self._world, np.random.default_rng([seed, episode, _DISPLACED]))

    def scatter(self, *, episode: int, seed: int) -> None:
        """Shows a moment to be asked about: a scene of its own, the hand anywhere (`moments.stir`).

        Raises:
            ValueError: if episode or seed are negative.
        """
        self.reset(task_id=0, episode=episode, seed=seed)
        stir(self._running(), np.random.default_rng([seed, episode, _SCATTERED]))

    def observe(self) -> RobotObservation:
        """Renders both cameras and reads the hand."""
        world = self._running()
        return RobotObservation(
            images=self._renderer.images(world),
            state=_state(world),
            instruction=self._instruction,
        )

    def step(self, action: Float32[np.ndarray, " a"]) -> StepResult:
        """Advances by one step.

        Raises:
            ValueError: if the action is not 7 finite numbers.
        """
        world = self._running()
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (ACTION_DIM,):
            raise ValueError(
                f"`action` must have shape ({ACTION_DIM},), but got {values.shape}. "
                "Pass one step of the chunk, cut to the robot's dimensions."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"`action` must be finite, but got {values.tolist()}.")
        world.step(np.clip(values, -1, 1))
        return StepResult(success=self._success(world))

    def truth(self) -> dict[str, Any]:
        """Middles of all things and of the hand, predicates and the goal.

        Metres and radians; things are named like `red_cube` and `blue_bowl`.
        """
        world = self._running()
        predicates = {f"grasped({body.item.name})": body is world.held for body in world.objects}
        for body in world.objects:
            for container in world.containers:
                name = f"in({body.item.name}, {container.item.name})"
                predicates[name] = world.contains(container, body)
        return {
            "objects": {body.item.name: list(body.centre) for body in world.bodies},
            "gripper": [world.x, world.y, world.z],
            "gripper_yaw": world.yaw,
            "gripper_opening": 2 * world.opening,
            "predicates": predicates,
            "goal": f"in({self._goal.target.name}, {self._goal.container.name})",
            "success": self._success(world),
        }

    def demonstrator(self) -> TabletopDemonstrator:
        """Solves the running episode."""
        return TabletopDemonstrator(self._running(), self._goal)

    def close(self) -> None:
        """Forgets the running episode."""
        self._world = None

    def _running(self) -> World:
        if self._world is None:
            raise ValueError("`reset` must come first, but no episode is running. Call `reset`.")
        return self._world

    def _success(self, world: World) -> bool:
        return world.contains(world.find(self._goal.container), world.find(self._goal.target))


def _state(world: World) -> Float32[np.ndarray, "8"]:
    """The hand points down: half a turn about an axis that yaws with it at half the angle."""
    turn = (math.pi * math.cos(world.yaw / 2), math.pi * math.sin(world.yaw / 2), 0.0)
    opening = min(world.opening, MAX_OPENING)
    values = (world.x, world.y, world.z, *turn, opening, -opening)
    return np.array(values, dtype=np.float32)
